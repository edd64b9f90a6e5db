//! The host side of shaders/: which entry point a [`Launch`] runs, with which parameters, over which grid.
//!
//! # Convention of the shaders
//! * One file an op family, `shaders/X.wgsl`, with its host side in `src/kernels/X.rs`. Every file is valid WGSL once
//!   the lines `// #include common/y.wgsl` are replaced by those files.
//! * Group 0. Binding 0 is `var<uniform> params: Params;`, inputs stand at 1, 2, 3, results beside
//!   it ([`Launch::also`]) at 5 and 6, the result `out` at 7 (`read_write`), the operands of stages at 8 to 13. What an entry point really binds is read off the text.
//! * `Params` is made by the `params!` macro on the host; a test holds it against the shader. With
//!   [`Gpu::bakes`] the line that declares `params` becomes `const params = Params(...);`, so that divisions are by
//!   constants and loops have known bounds. Same file, same struct. A parameter that any entry point of the file
//!   divides by must not be 0, also for calls of the others.
//! * `const NAME = 1u;` on a line of its own can be given another value by the host ([`Call::constants`]): register
//!   tiles, workgroup sizes, switches between forms.
//! * An included file can have others that take its place ([`Call::includes`]): another type of a binding.
//! * A result of floats is stored as `out[i] = Out(finish(v, i))`. `common/finish.wgsl` holds the `finish` that does
//!   nothing; for a launch with stages its place is taken by text made from the chain (stages.rs). The same for
//!   `before` of reductions. `Element` is the type of what is moved: f32, or u32 for launches of that type.
//! * Where a shader includes common/out_scalar.wgsl, common/out_vec4.wgsl can take its place ([`Call`] `in_fours`): results
//!   are then stored as `vec4`, `Element` and `finish` are of four neighbours, and `i` counts vectors.
//! * How floats lie in memory is said by a line `alias In1 = f32;` for each binding of floats (`In1`, `In2` for the
//!   inputs at 1 and 2, `Out` at 7, `Operand0` to `Operand5` at 8 to 13), and a load converts: `f32(a[i])`,
//!   `vec4<f32>(a[i])`. So a text with `enable f16;` before it and some of these lines saying f16 is valid too, and
//!   computes in f32 all the same.
//! * More than 65535 workgroups spill from x into y: `flat(...)` of `common/index.wgsl` numbers them, and each kernel
//!   guards against numbers behind its last element.
//! * A buffer is bound as `read` or as `read_write` in a dispatch, never both: no input is the output, and a stage
//!   that needs the old value of the output reads `out[i]` ([`crate::launch::Operand::Previous`]).
//! * Loops end and indices are in range by construction: the shaders are compiled without run-time checks.

mod augment;
mod gather;
mod gemm;
mod map;
mod mask;
mod movement;
mod pool;
mod random;
mod reduce;
mod rows;
mod stages;
mod text;

pub mod conv2d;
mod conv2d_image;
mod conv2d_winograd;
mod cooperative;
pub mod matmul;
pub mod tuner;

use self::stages::Width;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Dispatch, Gpu, Pass};
use crate::launch::{Kernel, Launch, Place};
use crate::shape::DType;

/// A shader file and the host's view of its parameters.
#[derive(Debug)]
pub struct Shader {
    /// Its path under shaders/.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
    /// The fields of its `Params`, in order.
    pub fields: &'static [Field],
}

/// A field of a parameter struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Where it begins, in bytes.
    pub offset: usize,
    /// Its type.
    pub kind: Kind,
}

/// Types a parameter may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    U32,
    I32,
    F32,
    U32x4,
}

impl Shader {
    /// Its text with the included files in their places, as an editor or a validator wants it.
    ///
    /// # Errors
    /// A sentence when an included file does not exist.
    pub fn plain(&self) -> std::result::Result<String, String> {
        text::plain(self)
    }
}

impl Kind {
    /// Bytes it takes, in Rust as in WGSL.
    pub fn bytes(self) -> usize {
        if self == Kind::U32x4 { 16 } else { 4 }
    }
}

/// Rust types that are parameter types.
pub trait Parameter {
    /// The type in WGSL.
    const KIND: Kind;
}

impl Parameter for u32 {
    const KIND: Kind = Kind::U32;
}
impl Parameter for i32 {
    const KIND: Kind = Kind::I32;
}
impl Parameter for f32 {
    const KIND: Kind = Kind::F32;
}
impl Parameter for [u32; 4] {
    const KIND: Kind = Kind::U32x4;
}

/// Declares the parameters of a shader: `params! { len: u32, size: [u32; 4] }` makes `struct Params`, plain data laid
/// out as the `Params` of the shader, and `Params::FIELDS` that says so. A `[u32; 4]` is a `vec4<u32>` and has to
/// stand at a multiple of 16 bytes.
macro_rules! params {
    ($($(#[$meta:meta])* $field:ident: $kind:ty),* $(,)?) => {
        /// Parameters, as the shader's `Params`.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        struct Params {
            $($(#[$meta])* $field: $kind,)*
        }

        impl Params {
            const FIELDS: &'static [$crate::kernels::Field] = &[$($crate::kernels::Field {
                name: stringify!($field),
                offset: std::mem::offset_of!(Params, $field),
                kind: <$kind as $crate::kernels::Parameter>::KIND,
            }),*];
        }
    };
}
use params;

/// The shader files, each once.
pub fn shaders() -> Vec<&'static Shader> {
    let mut all = vec![
        &map::SHADER,
        &mask::SHADER,
        &reduce::SHADER,
        &movement::SHADER,
        &rows::SHADER,
        &pool::SHADER,
        &gather::SHADER,
        &augment::SHADER,
        &random::SHADER,
    ];
    all.extend(matmul::shaders());
    all.extend(conv2d::shaders());
    all
}

/// What the choice of a kernel may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The processor plays GPU: loads and dispatches are dear, workgroup memory is no faster than any other.
    pub software: bool,
    /// Smallest and largest subgroup, where subgroup operations can be used.
    pub subgroup: Option<[u32; 2]>,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Most invocations of a workgroup.
    pub workgroup_invocations: u32,
    /// Most workgroups along an axis.
    pub workgroups: u32,
    /// Whether shaders can read and write f16.
    pub half: bool,
    /// The size of the cooperative matrices that were found right (f16 factors, f32 sums), where there are any.
    pub cooperative: Option<u32>,
}

impl Target {
    /// The target a device is.
    pub fn of(gpu: &Gpu) -> Target {
        Target { cooperative: cooperative::proven(gpu), ..Target::without_cooperative(gpu) }
    }

    /// The target a device is but for its cooperative matrices.
    fn without_cooperative(gpu: &Gpu) -> Target {
        let summary = gpu.summary();
        Target {
            software: summary.is_software(),
            subgroup: summary.offers("SUBGROUP").then_some(summary.subgroup),
            workgroup_memory: summary.workgroup_memory,
            workgroup_invocations: summary.workgroup_invocations,
            workgroups: summary.workgroups,
            half: summary.offers("SHADER_F16"),
            cooperative: None,
        }
    }

    /// A grid of at least `count` workgroups, spilling from x into y; numbered by `flat` of common/index.wgsl.
    pub fn grid(&self, count: usize) -> [u32; 3] {
        let rows = count.div_ceil(self.workgroups as usize).max(1);
        [count.div_ceil(rows) as u32, rows as u32, 1]
    }
}

/// A buffer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// An input of the launch.
    Input(usize),
    /// The launch's output.
    Output,
    /// Scratch memory, see [`Calls::scratch`].
    Scratch(usize),
}

/// One dispatch of a launch.
#[derive(Clone, Debug)]
pub struct Call {
    /// The file.
    pub shader: &'static Shader,
    /// The entry point.
    pub entry: &'static str,
    /// The bytes of the shader's `Params`.
    pub params: Vec<u8>,
    /// New values of `const NAME = 1u;` lines.
    pub constants: Vec<(&'static str, u32)>,
    /// Included files that others take the place of: (in the shader, instead).
    pub includes: Vec<(&'static str, &'static str)>,
    /// What is bound at 1, 2, 3.
    pub inputs: Vec<Arg>,
    /// What is bound at 7.
    pub output: Arg,
    /// Whether `finish` is the launch's chain of stages (else it returns its argument).
    pub stages: bool,
    /// How many neighbours `finish` handles at a time; [`Call::in_fours`].
    width: Width,
    /// Workgroups.
    pub grid: [u32; 3],
}

impl Call {
    /// The usual call: the launch's inputs in order, its output, its stages.
    pub fn new<P: bytemuck::Pod>(
        shader: &'static Shader,
        entry: &'static str,
        params: &P,
        launch: &Launch,
        grid: [u32; 3],
    ) -> Call {
        Call {
            shader,
            entry,
            params: bytemuck::bytes_of(params).to_vec(),
            constants: Vec::new(),
            includes: Vec::new(),
            inputs: (0..launch.inputs.len()).map(Arg::Input).collect(),
            output: Arg::Output,
            stages: true,
            width: Width::One,
            grid,
        }
    }

    /// With a constant of the shader changed.
    pub fn constant(mut self, name: &'static str, value: u32) -> Call {
        self.constants.push((name, value));
        self
    }

    /// With a result stored, and finished, in vectors of four neighbours where `when` and the launch allows it; the
    /// shader includes common/out_scalar.wgsl.
    fn in_fours(mut self, when: bool, launch: &Launch) -> Call {
        if when && (!self.stages || stages::in_fours(launch)) {
            self.width = Width::Four;
            self.includes.push(("common/out_scalar.wgsl", "common/out_vec4.wgsl"));
            self.includes.push(("common/store_scalar.wgsl", "common/store_vec4.wgsl"));
        }
        self
    }

    /// With another file included in the place of `path`.
    pub fn include(mut self, path: &'static str, instead: &'static str) -> Call {
        self.includes.push((path, instead));
        self
    }
}

/// The dispatches of a launch, in order.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// The dispatches.
    pub list: Vec<Call>,
    /// Bytes of each scratch buffer the calls use; it holds anything before the first and is lost after the last.
    pub scratch: Vec<u64>,
}

impl From<Call> for Calls {
    fn from(call: Call) -> Calls {
        Calls { list: vec![call], scratch: Vec::new() }
    }
}

/// The dispatches a launch takes on a target.
///
/// # Errors
/// [`Error::Unsupported`] for types or extents no kernel handles.
pub fn calls(launch: &Launch, target: &Target) -> Result<Calls> {
    check(launch)?;
    if !target.half && (launch.dtype == DType::F16 || !launch.halves.is_empty()) {
        return Err(Error::Unsupported(
            "half precision: this adapter's shaders cannot read and write f16 (it has no SHADER_F16); compute in f32, \
             for an attack by --attack-precision f32, or on the CPU, by --device cpu"
                .into(),
        ));
    }
    if launch.shape.is_empty() {
        return Ok(Calls::default());
    }
    match &launch.kernel {
        Kernel::Map { .. } | Kernel::Update | Kernel::Fill { .. } => map::calls(launch, target),
        Kernel::Reduce { .. } => reduce::calls(launch, target),
        Kernel::Copy { .. } | Kernel::Concat { .. } => movement::calls(launch, target),
        Kernel::MatMul { .. } => Ok(matmul::calls(matmul::families(launch, target)[0], launch, target)),
        Kernel::Conv2d(_) | Kernel::Conv2dInputGrad(_) | Kernel::Conv2dWeightGrad(_) => {
            conv2d::calls(conv2d::forms(launch, target)[0], launch, target)
        }
        Kernel::Mask { .. } => Ok(mask::calls(launch, target)),
        Kernel::MaxPoolIndex(_)
        | Kernel::PoolGather(_)
        | Kernel::PoolScatter(_)
        | Kernel::AvgPool(_)
        | Kernel::AvgPoolGrad(_) => pool::calls(launch, target),
        Kernel::ArgMax { .. }
        | Kernel::Softmax { .. }
        | Kernel::CrossEntropy { .. }
        | Kernel::CrossEntropyGrad { .. }
        | Kernel::CrossEntropyDirection { .. }
        | Kernel::Correct { .. }
        | Kernel::OneHot { .. } => rows::calls(launch, target),
        Kernel::GatherRows { .. } => gather::calls(launch, target),
        Kernel::Augment { .. } => augment::calls(launch, target),
        Kernel::Random { .. } => random::calls(launch, target),
    }
}

/// One of several ways to run a launch.
#[derive(Clone, Debug)]
pub struct Variant {
    /// A name that says which, the same for a launch and a target in every run.
    pub name: String,
    /// Its dispatches.
    pub calls: Calls,
}

/// The ways to run a launch on a target, [`calls`] first: what a measurement may choose from. All compute the same
/// sums; in another order where their tiles or shares of the depth differ.
///
/// # Errors
/// As [`calls`].
pub fn variants(launch: &Launch, target: &Target) -> Result<Vec<Variant>> {
    let default = calls(launch, target)?;
    if launch.shape.is_empty() {
        return Ok(vec![Variant { name: "nothing".into(), calls: default }]);
    }
    match &launch.kernel {
        Kernel::MatMul { .. } => Ok(matmul::families(launch, target)
            .into_iter()
            .map(|family| Variant { name: family.to_string(), calls: matmul::calls(family, launch, target) })
            .collect()),
        Kernel::Conv2d(_) | Kernel::Conv2dInputGrad(_) | Kernel::Conv2dWeightGrad(_) => {
            // A way that does not fit the grid is no way.
            let variant = |form: conv2d::Form| {
                conv2d::calls(form, launch, target)
                    .ok()
                    .map(|calls| Variant { name: form.to_string(), calls })
            };
            Ok(conv2d::forms(launch, target).into_iter().filter_map(variant).collect())
        }
        _ => Ok(vec![Variant { name: "only".into(), calls: default }]),
    }
}

/// What every kernel relies on: results of few types that 32-bit indices reach, stages only where they can be.
fn check(launch: &Launch) -> Result<()> {
    let refuse = |why: String| Err(Error::Unsupported(format!("{launch} -> {}: {why}", launch.shape)));
    if launch.dtype == DType::U8 {
        return refuse("kernels give f32, f16 or u32, not u8".into());
    }
    if launch.shape.len() >= 1 << 31 {
        return refuse("more than 2^31 - 1 elements".into());
    }
    if !launch.stages.is_empty() && (launch.dtype == DType::U32 || !launch.kernel.takes_stages()) {
        return refuse("stages follow only kernels that give floats in one piece".into());
    }
    if !launch.also.is_empty() && launch.kernel.gives_per_row().is_none() {
        return refuse("only the gradient of a cross-entropy gives numbers a row too".into());
    }
    let most = launch.max_operands();
    if launch.operands().len() > most {
        return refuse(format!("stages read more than {most} operands"));
    }
    Ok(())
}

/// Bytes of scratch memory that running `launches` takes beside their slots and tensors.
///
/// # Errors
/// As [`calls`].
pub fn scratch_bytes(launches: &[Launch], target: &Target) -> Result<u64> {
    let all = launches.iter().map(|launch| calls(launch, target)).collect::<Result<Vec<_>>>()?;
    Ok(scratch_sizes(&all).iter().sum())
}

/// The size of each scratch buffer: launches run one after another and share them.
fn scratch_sizes(all: &[Calls]) -> Vec<u64> {
    let mut sizes = Vec::new();
    for calls in all {
        sizes.resize(sizes.len().max(calls.scratch.len()), 0);
        for (size, &needed) in sizes.iter_mut().zip(&calls.scratch) {
            *size = needed.max(*size);
        }
    }
    sizes
}

/// Launches ready to run on a device: pipelines made, buffers bound.
pub struct Compiled {
    launches: Vec<Vec<Dispatch>>,
    /// How many of them run once a repeat.
    prologue: usize,
    /// Bytes of their scratch memory.
    scratch: u64,
}

impl Compiled {
    /// Prepares launches, the first `prologue` of which are frozen, whose places are `slots` and `tensors`. Pipelines
    /// are shared with everything else on this device that has the same text.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a launch no kernel handles, [`Error::OutOfMemory`] for scratch memory,
    /// [`Error::Gpu`] when a shader does not compile.
    pub fn new(
        gpu: &Gpu,
        launches: &[Launch],
        prologue: usize,
        slots: &[Buffer],
        tensors: &[Buffer],
    ) -> Result<Compiled> {
        let target = Target::of(gpu);
        let all = launches.iter().map(|launch| calls(launch, &target)).collect::<Result<Vec<_>>>()?;
        Compiled::with_calls(gpu, launches, &all, prologue, slots, tensors)
    }

    /// As [`Compiled::new`], each launch by the calls given for it, of [`variants`]: a measured choice, or, in tests, the
    /// kernels of another target.
    ///
    /// # Errors
    /// As [`Compiled::new`].
    ///
    /// # Panics
    /// When there are not as many calls as launches.
    pub fn with_calls(
        gpu: &Gpu,
        launches: &[Launch],
        all: &[Calls],
        prologue: usize,
        slots: &[Buffer],
        tensors: &[Buffer],
    ) -> Result<Compiled> {
        assert_eq!(launches.len(), all.len(), "calls for each launch");
        let scratch = scratch_sizes(all)
            .iter()
            .map(|&bytes| gpu.allocate(bytes, "scratch memory of kernels"))
            .collect::<Result<Vec<_>>>()?;
        let place = |place: &Place| {
            let (list, index, kind) = match place {
                Place::Slot(index) => (slots, *index, "slot"),
                Place::Tensor(index) => (tensors, *index, "tensor"),
            };
            list.get(index)
                .ok_or_else(|| Error::Unsupported(format!("a launch names {kind} {index} of {}", list.len())))
        };
        let dispatch = |launch: &Launch, call: &Call| -> Result<Dispatch> {
            let label = format!("{launch} ({}, {})", call.shader.path, call.entry);
            let text = text::assemble(call, launch, gpu.bakes()).map_err(|why| Error::Gpu {
                device: gpu.summary().name.clone(),
                message: format!("{label}: {why}"),
            })?;
            let pipeline = gpu.pipeline(&text, call.entry, &label)?;
            let buffer = |arg: Arg| match arg {
                Arg::Input(i) => launch
                    .inputs
                    .get(i)
                    .ok_or_else(|| Error::Unsupported(format!("{label}: there is no input {i}")))
                    .and_then(place),
                Arg::Output => place(&launch.output),
                Arg::Scratch(i) => Ok(&scratch[i]),
            };
            let mut buffers = Vec::new();
            for (i, &input) in call.inputs.iter().enumerate() {
                buffers.push((text::FIRST_INPUT + i as u32, buffer(input)?));
            }
            buffers.push((text::OUT, buffer(call.output)?));
            for (what, beside) in &launch.also {
                buffers.push((rows::binding(*what), place(beside)?));
            }
            for (i, (operand, _)) in launch.operands().iter().enumerate() {
                buffers.push((text::FIRST_OPERAND + i as u32, place(operand)?));
            }
            gpu.bind(&pipeline, &buffers, &call.params, call.grid)
        };
        let launches = launches
            .iter()
            .zip(all)
            .map(|(launch, calls)| calls.list.iter().map(|call| dispatch(launch, call)).collect())
            .collect::<Result<Vec<_>>>()?;
        Ok(Compiled { launches, prologue, scratch: scratch.iter().map(Buffer::bytes).sum() })
    }

    /// Bytes of scratch memory the launches share.
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch
    }

    /// Number of launches.
    pub fn len(&self) -> usize {
        self.launches.len()
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// Records the beginning of a repeat: the prologue.
    pub fn encode_begin(&self, pass: &mut Pass<'_>) {
        self.launches[..self.prologue].iter().flatten().for_each(|dispatch| pass.dispatch(dispatch));
    }

    /// Records the launches behind the prologue, in order.
    pub fn encode(&self, pass: &mut Pass<'_>) {
        self.launches[self.prologue..].iter().flatten().for_each(|dispatch| pass.dispatch(dispatch));
    }

    /// Records launch `i`.
    ///
    /// # Panics
    /// When there is no launch `i`.
    pub fn encode_launch(&self, i: usize, pass: &mut Pass<'_>) {
        self.launches[i].iter().for_each(|dispatch| pass.dispatch(dispatch));
    }
}
