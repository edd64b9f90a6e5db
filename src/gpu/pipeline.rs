//! Pipelines: WGSL text to something that can be dispatched, once a text and entry point.

use super::{Gpu, lock};
use crate::error::Result;
use std::sync::Arc;

/// A pipeline is known by its text and its entry point.
pub(super) type Key = (String, String);

/// A compiled entry point and the bindings of group 0 it uses, read off the text by naga.
pub struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    bindings: Vec<u32>,
    pub(super) label: String,
}

impl Pipeline {
    /// Numbers of the bindings the entry point uses, ascending.
    pub fn bindings(&self) -> &[u32] {
        &self.bindings
    }
}

/// Bindings of group 0 that `entry` uses, or why the text is not valid.
fn reflect(text: &str, entry: &str) -> std::result::Result<Vec<u32>, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let info =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all())
            .validate(&module)
            .map_err(|error| error.emit_to_string(text))?;
    let index = module
        .entry_points
        .iter()
        .position(|point| point.name == entry)
        .ok_or_else(|| format!("there is no entry point `{entry}`"))?;
    let used = info.get_entry_point(index);
    let mut bindings: Vec<u32> = module
        .global_variables
        .iter()
        .filter(|(handle, _)| !used[*handle].is_empty())
        .filter_map(|(_, variable)| variable.binding.as_ref())
        .map(|binding| binding.binding)
        .collect();
    bindings.sort_unstable();
    Ok(bindings)
}

impl Gpu {
    /// The pipeline of an entry point of a WGSL text; `label` names it in errors. Made once a text and entry.
    ///
    /// Without [`super::Options::checked`] the text has to be one whose loops end and whose indices are in range.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] with the compiler's message when the text is not valid.
    pub fn pipeline(&self, text: &str, entry: &str, label: &str) -> Result<Arc<Pipeline>> {
        let key = (text.to_string(), entry.to_string());
        if let Some(pipeline) = lock(&self.0.pipelines).get(&key) {
            return Ok(pipeline.clone());
        }
        let bindings = reflect(text, entry).map_err(|why| self.error(format!("{label}: {why}")))?;
        let made = self.scoped(label, 0, |device| {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(label),
                source: wgpu::ShaderSource::Wgsl(text.into()),
            };
            let module = if self.0.options.checked {
                device.create_shader_module(descriptor)
            } else {
                // SAFETY: the texts are this crate's own shaders, whose loops are bounded by parameters and whose
                // indices are in range for the buffers the kernels' host sides bind; the tests run them checked.
                unsafe {
                    device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
                }
            };
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    // Every kernel writes its workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            })
        })?;
        let layout = self.scoped(label, 0, |_| made.get_bind_group_layout(0))?;
        let pipeline = Arc::new(Pipeline { pipeline: made, layout, bindings, label: label.into() });
        lock(&self.0.pipelines).insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// Pipelines made so far.
    pub fn pipelines(&self) -> usize {
        lock(&self.0.pipelines).len()
    }
}
