//! The adapters of this machine, in numbers worth knowing before one is opened.

use std::fmt;

/// What an adapter is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A card with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU passed through to a virtual machine.
    Virtual,
    /// The driver does not say.
    Other,
    /// The processor playing GPU: lavapipe, WARP.
    Software,
}

/// Features a person may want to see, by the names wgpu gives them, whether or not a kernel uses them.
const OF_INTEREST: [(wgpu::Features, &str); 9] = [
    (wgpu::Features::SHADER_F16, "SHADER_F16"),
    (wgpu::Features::SUBGROUP, "SUBGROUP"),
    (wgpu::Features::SUBGROUP_BARRIER, "SUBGROUP_BARRIER"),
    (wgpu::Features::TIMESTAMP_QUERY, "TIMESTAMP_QUERY"),
    (wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS, "TIMESTAMP_QUERY_INSIDE_ENCODERS"),
    (wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES, "TIMESTAMP_QUERY_INSIDE_PASSES"),
    (wgpu::Features::IMMEDIATES, "IMMEDIATES"),
    (wgpu::Features::SHADER_INT64, "SHADER_INT64"),
    (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "EXPERIMENTAL_COOPERATIVE_MATRIX"),
];

/// Features a device is opened with where its adapter offers them.
pub(super) const WANTED: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);

/// One adapter, as its driver describes it. [`fmt::Display`] gives one line, `{:#}` several.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    /// Place in [`adapters`], by which a person may name it.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// Vulkan, Metal or DX12.
    pub backend: String,
    /// What it is made of.
    pub kind: AdapterKind,
    /// Numbers of its vendor and of the device, as on the PCI bus.
    pub ids: [u32; 2],
    /// Driver and its version.
    pub driver: String,
    /// Features of interest it offers.
    pub features: Vec<&'static str>,
    /// Largest buffer a shader can bind, in bytes.
    pub max_binding: u64,
    /// Largest buffer, in bytes.
    pub max_buffer: u64,
    /// Memory a workgroup can share, in bytes.
    pub workgroup_memory: u32,
    /// Invocations a workgroup can have.
    pub workgroup_invocations: u32,
    /// Workgroups a dispatch can have along an axis.
    pub workgroups: u32,
    /// Storage buffers a shader can bind.
    pub storage_buffers: u32,
    /// Smallest and largest subgroup.
    pub subgroup: [u32; 2],
    /// The size of square cooperative matrices with factors of f16 and sums of f32, the largest the driver offers.
    pub cooperative: Option<u32>,
    /// Memory of the device in bytes, where the driver says.
    pub memory: Option<u64>,
    pub(super) adapter: wgpu::Adapter,
}

/// The adapters of this machine, hardware before software; none where there is no driver.
pub fn adapters() -> Vec<AdapterSummary> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::PRIMARY,
        flags: wgpu::InstanceFlags::empty(),
        // Creation beyond this share of what the driver says is free is an out-of-memory error instead of paging.
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
            for_resource_creation: Some(97),
            for_device_loss: None,
        },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut found: Vec<AdapterSummary> =
        pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
            .into_iter()
            .map(summarise)
            .collect();
    found.sort_by_key(|summary| summary.kind);
    for (index, summary) in found.iter_mut().enumerate() {
        summary.index = index;
    }
    found
}

fn summarise(adapter: wgpu::Adapter) -> AdapterSummary {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    AdapterSummary {
        index: 0,
        name: info.name,
        backend: format!("{:?}", info.backend),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Other,
        },
        ids: [info.vendor, info.device],
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        features: OF_INTEREST
            .iter()
            .filter(|(bit, _)| features.contains(*bit))
            .map(|(_, name)| *name)
            .collect(),
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        workgroups: limits.max_compute_workgroups_per_dimension,
        storage_buffers: limits.max_storage_buffers_per_shader_stage,
        subgroup: [info.subgroup_min_size, info.subgroup_max_size],
        cooperative: cooperative(&adapter),
        memory: device_memory(&adapter),
        adapter,
    }
}

/// The size of the largest square cooperative matrices with factors of f16 and sums of f32.
fn cooperative(adapter: &wgpu::Adapter) -> Option<u32> {
    if !adapter.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return None;
    }
    let (half, full) = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
    let offered = adapter.cooperative_matrix_properties();
    let fits = |size: u32| {
        offered.iter().any(|p| {
            [p.m_size, p.n_size, p.k_size] == [size; 3]
                && p.ab_type == half
                && p.cr_type == full
                && !p.saturating_accumulation
        })
    };
    [16, 8].into_iter().find(|&size| fits(size))
}

/// Bytes of the largest device-local heap of a Vulkan adapter.
#[cfg(not(target_vendor = "apple"))]
fn device_memory(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the handles are only asked for properties, and the guard keeps the adapter alive meanwhile.
    unsafe {
        let vulkan = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = vulkan.shared_instance().raw_instance();
        let memory = instance.get_physical_device_memory_properties(vulkan.raw_physical_device());
        // Bit 0 of a heap's flags is VK_MEMORY_HEAP_DEVICE_LOCAL_BIT.
        memory.memory_heaps[..memory.memory_heap_count as usize]
            .iter()
            .filter(|heap| heap.flags.as_raw() & 1 == 1)
            .map(|heap| heap.size)
            .max()
    }
}

/// Metal is asked through no public call.
#[cfg(target_vendor = "apple")]
fn device_memory(_: &wgpu::Adapter) -> Option<u64> {
    None
}

impl AdapterSummary {
    /// Whether the processor plays GPU here.
    pub fn is_software(&self) -> bool {
        self.kind == AdapterKind::Software
    }

    /// Whether it offers this feature of interest.
    pub fn offers(&self, feature: &str) -> bool {
        self.features.contains(&feature)
    }
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AdapterKind::Discrete => "discrete GPU",
            AdapterKind::Integrated => "integrated GPU",
            AdapterKind::Virtual => "virtual GPU",
            AdapterKind::Other => "unknown kind",
            AdapterKind::Software => "software",
        })
    }
}

impl fmt::Display for AdapterSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}, {}; {})", self.index, self.name, self.kind, self.backend, self.driver)?;
        if f.alternate() {
            let mib = |bytes: u64| bytes >> 20;
            let memory = self.memory.map_or("unknown".into(), |bytes| format!("{} MiB", mib(bytes)));
            let [low, high] = self.subgroup;
            write!(f, "\n   memory {memory}, largest buffer {} MiB", mib(self.max_buffer))?;
            write!(f, ", largest binding {} MiB, {} a shader", mib(self.max_binding), self.storage_buffers)?;
            write!(f, "\n   workgroup: {} invocations", self.workgroup_invocations)?;
            write!(f, ", {} bytes shared; subgroup {low} to {high}", self.workgroup_memory)?;
            write!(f, "\n   {}", self.features.join(", "))?;
            if let Some(size) = self.cooperative {
                write!(f, "\n   cooperative matrices of {size}x{size}, f16 with sums in f32")?;
            }
        }
        Ok(())
    }
}
