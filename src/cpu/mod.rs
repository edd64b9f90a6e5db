//! The CPU executor: runs launches on the host, in f32 as the product where there is no GPU, in f64 as the reference
//! that kernels and gradients are tested against.
//!
//! One implementation an op family, generic over both floats. Work is cut by shapes alone, so the same launches give
//! the same bits for every number of threads.

mod blocks;
mod conv2d;
mod float;
mod gather;
mod half;
mod map;
mod mask;
mod matmul;
mod movement;
mod pool;
mod random;
mod reduce;
mod rows;
mod stages;
mod tile;
mod vectors;

pub use float::Float;
pub(crate) use half::available as multiplies_halves;

use crate::launch::{Kernel, Launch, MAX_OPERANDS, Place, is_frozen};
use crate::shape::DType;
use crate::tape::Augment;
use blocks::{BLOCK, Line, lines, reserve};
use conv2d::Convolution;
use half::HalfProduct;
use matmul::Product;
use movement::View;
use random::Stream;
use reduce::Fold;
use rows::Also;
use stages::{Epilogue, Steps};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Elements of a tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub enum Data<T> {
    /// Floats of the executor (both [`DType::F32`] and [`DType::F16`]).
    Float(Vec<T>),
    /// Integers.
    U32(Vec<u32>),
    /// Bytes.
    U8(Vec<u8>),
}

impl<T> Data<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::Float(x) => x.len(),
            Data::U32(x) => x.len(),
            Data::U8(x) => x.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `len` elements as floats. The plan's types are checked when the tape is recorded, so another type
    /// here is a defect of the plan.
    fn float(&self, len: usize) -> &[T] {
        match self {
            Data::Float(x) => &x[..len],
            _ => unreachable!("the plan reads integers as floats"),
        }
    }

    fn float_mut(&mut self, len: usize) -> &mut [T] {
        match self {
            Data::Float(x) => &mut x[..len],
            _ => unreachable!("the plan writes floats to integers"),
        }
    }

    fn u32(&self, len: usize) -> &[u32] {
        match self {
            Data::U32(x) => &x[..len],
            _ => unreachable!("the plan reads floats or bytes as u32"),
        }
    }

    fn u8(&self, len: usize) -> &[u8] {
        match self {
            Data::U8(x) => &x[..len],
            _ => unreachable!("the plan reads floats or u32 as bytes"),
        }
    }
}

/// Buffers that a launch reads and that are held without asking for memory.
const FEW: usize = 8;

/// A tensor's memory, shared between the store and the plans that use it.
pub type Buffer<T> = Arc<RwLock<Data<T>>>;

/// Zero-filled memory for `len` elements.
pub fn allocate<T: Float>(dtype: DType, len: usize) -> Buffer<T> {
    Arc::new(RwLock::new(match dtype {
        DType::F32 | DType::F16 => Data::Float(vec![T::ZERO; len]),
        DType::U32 => Data::U32(vec![0; len]),
        DType::U8 => Data::U8(vec![0; len]),
    }))
}

/// Memory for a launch's partial results and packed filters, of unspecified contents between launches. Clones are the
/// same memory: executors that do not run at once share it. It is as large as the largest need among them.
/// Threads have scratch memory of their own, whatever they run; it counts here by what these executors need of it.
#[derive(Clone, Default)]
pub struct Workspace(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    shared: Vec<Line>,
    bytes: u64,
}

impl Workspace {
    /// Bytes taken.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // What a panic leaves in it is of no interest to the next launch.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of the filters that `launches` keep packed in half precision.
pub fn packed_bytes(launches: &[Launch]) -> u64 {
    let products = launches.iter().filter_map(half_product::<f32>);
    products.map(|product| (product.memory() * size_of::<Line>()) as u64).sum()
}

/// The form in half precision of a launch that has one.
fn half_product<T: Float>(launch: &Launch) -> Option<HalfProduct> {
    (T::HALVES && launch.is_half_product()).then(|| HalfProduct::new(&launch.kernel)).flatten()
}

/// Bytes of workspace that running `launches` takes, with what each thread has of its own.
pub fn scratch_bytes<T: Float>(launches: &[Launch]) -> u64 {
    let ready: Vec<Ready> = launches.iter().map(Ready::new::<T>).collect();
    Needed::of::<T>(launches, &ready).bytes()
}

/// Cache lines of scratch memory: for all threads together, and for each.
struct Needed {
    shared: usize,
    own: usize,
}

impl Needed {
    fn of<T: Float>(launches: &[Launch], ready: &[Ready]) -> Needed {
        let all = || launches.iter().zip(ready);
        let shared = all().map(|(launch, ready)| ready.scratch::<T>(launch)).max();
        let own = all().map(|(launch, ready)| ready.own::<T>(launch)).max();
        Needed { shared: lines::<T>(shared.unwrap_or(0)), own: own.unwrap_or(0) }
    }

    fn bytes(&self) -> u64 {
        ((self.shared + rayon::current_num_threads() * self.own) * size_of::<Line>()) as u64
    }
}

/// What a launch needs besides its memory, resolved once.
struct Ready {
    /// The stages on the way into a reduction.
    before: Steps,
    steps: Steps,
    convolution: Option<Convolution>,
    half: Option<Half>,
    /// Distinct buffers the launch reads.
    reads: Vec<Place>,
    /// Position in `reads` of each input of the kernel.
    inputs: Vec<usize>,
    /// Position in `reads` and elements (or words of bits) of each operand of the stages.
    operands: Vec<(usize, usize)>,
}

impl Ready {
    fn new<T: Float>(launch: &Launch) -> Ready {
        let mut reads: Vec<Place> = Vec::new();
        let mut position = |place: Place| {
            reads.iter().position(|&read| read == place).unwrap_or_else(|| {
                reads.push(place);
                reads.len() - 1
            })
        };
        let inputs = launch.inputs.iter().map(|&place| position(place)).collect();
        let operands =
            launch.operands().iter().map(|&(place, stretch)| (position(place), stretch.modulo)).collect();
        let half = half_product::<T>(launch).map(|product| Half {
            product,
            packed: Vec::new(),
            frozen: false,
            is_packed: false,
        });
        let convolution = if half.is_some() { None } else { Convolution::new::<T>(&launch.kernel) };
        Ready {
            before: Steps::before(launch),
            steps: Steps::new(launch),
            convolution,
            half,
            reads,
            inputs,
            operands,
        }
    }

    /// Floats of memory the launch needs beyond a thread's own.
    fn scratch<T: Float>(&self, launch: &Launch) -> usize {
        match (&self.convolution, &launch.kernel) {
            (Some(convolution), _) => convolution.scratch::<T>(),
            (None, kernel @ Kernel::Reduce { .. }) => fold_of(kernel).scratch(),
            (None, &Kernel::MatMul { m, n, k, ta, tb }) if self.half.is_none() => {
                Product { m, n, k, ta, tb }.scratch::<T>()
            }
            _ => 0,
        }
    }

    /// Cache lines that a task of the launch takes of its thread's own memory, at most.
    fn own<T: Float>(&self, launch: &Launch) -> usize {
        let (task, block) = match (&self.half, &self.convolution, &launch.kernel) {
            (Some(half), _, _) => half.product.own(),
            (None, Some(convolution), _) => convolution.own::<T>(),
            (None, None, &Kernel::MatMul { m, n, k, ta, tb }) => Product { m, n, k, ta, tb }.own::<T>(),
            _ => (0, BLOCK.max(launch.shape.dims().last().copied().unwrap_or(1))),
        };
        // What the output held, or what replaces it; a piece of memory begins with a cache line.
        let previous = if self.steps.read_previous() { lines::<T>(block) } else { 0 };
        let lines = lines::<T>(task) + previous;
        if lines == 0 { 0 } else { lines + 2 }
    }
}

/// A product in half precision with its packed right operand.
struct Half {
    product: HalfProduct,
    packed: Vec<Line>,
    /// Whether the right operand stays as it is over a repeat, and whether it is packed already.
    frozen: bool,
    is_packed: bool,
}

/// Launches with their memory, ready to run again and again.
pub struct Executor<T> {
    launches: Vec<Launch>,
    /// How many of them run once a repeat.
    prologue: usize,
    ready: Vec<Ready>,
    slots: Vec<Buffer<T>>,
    tensors: Vec<Buffer<T>>,
    workspace: Workspace,
}

impl<T: Float> Executor<T> {
    /// An executor of `launches`, the first `prologue` of which are frozen, over these slots and tensors, which must be
    /// at least as long as the launches use them and of the launches' types; a slot serves values of one type only.
    /// The workspace grows to what the launches need.
    pub fn new(
        launches: Vec<Launch>,
        prologue: usize,
        slots: Vec<Buffer<T>>,
        tensors: Vec<Buffer<T>>,
        workspace: Workspace,
    ) -> Executor<T> {
        let mut ready: Vec<Ready> = launches.iter().map(Ready::new::<T>).collect();
        for (launch, ready) in launches.iter().zip(&mut ready) {
            if let Some(half) = &mut ready.half {
                half.packed = vec![Line::ZERO; half.product.memory()];
                half.frozen = is_frozen(&launches, prologue, launch.inputs[1]);
            }
        }
        let needed = Needed::of::<T>(&launches, &ready);
        {
            let mut memory = workspace.lock();
            memory.bytes = memory.bytes.max(needed.bytes());
            if memory.shared.len() < needed.shared {
                memory.shared = vec![Line::ZERO; needed.shared];
            }
        }
        rayon::broadcast(|_| reserve(needed.own));
        Executor { launches, prologue, ready, slots, tensors, workspace }
    }

    /// The launches, in order.
    pub fn launches(&self) -> &[Launch] {
        &self.launches
    }

    /// Begins a repeat: runs the prologue.
    pub fn begin(&mut self) {
        self.ready.iter_mut().filter_map(|ready| ready.half.as_mut()).for_each(|half| half.is_packed = false);
        on_a_worker(|| (0..self.prologue).for_each(|index| self.launch(index)));
    }

    /// Runs the launches behind the prologue in order; [`Executor::begin`] must have been called since a tensor that
    /// they do not write was last changed.
    pub fn run(&mut self) {
        on_a_worker(|| (self.prologue..self.launches.len()).for_each(|index| self.launch(index)));
    }

    /// As [`Executor::begin`] and then [`Executor::run`] so many times.
    pub fn repeat(&mut self, times: usize) {
        if times > 0 {
            on_a_worker(|| {
                self.begin();
                (0..times).for_each(|_| self.run());
            });
        }
    }

    /// Runs one launch.
    ///
    /// # Panics
    /// When there is no launch of this index.
    pub fn run_launch(&mut self, index: usize) {
        if let Some(half) = &mut self.ready[index].half {
            half.is_packed = false;
        }
        on_a_worker(|| self.launch(index));
    }

    fn launch(&mut self, index: usize) {
        let mut half = self.ready[index].half.take();
        self.launch_with(index, half.as_mut());
        self.ready[index].half = half;
    }

    fn launch_with(&mut self, index: usize, half: Option<&mut Half>) {
        let (launch, ready) = (&self.launches[index], &self.ready[index]);
        let buffer = |place: Place| match place {
            Place::Slot(i) => &self.slots[i],
            Place::Tensor(i) => &self.tensors[i],
        };
        // No memory is asked for in a run: the locks of a launch lie on the stack, but for a concatenation of many.
        let lock = |&place: &Place| buffer(place).read().unwrap_or_else(PoisonError::into_inner);
        let few = ready.reads.len().min(FEW);
        let (first, rest) = ready.reads.split_at(few);
        let mut held: [Option<RwLockReadGuard<Data<T>>>; FEW] = [const { None }; FEW];
        held.iter_mut().zip(first).for_each(|(held, place)| *held = Some(lock(place)));
        let more: Vec<RwLockReadGuard<Data<T>>> = rest.iter().map(lock).collect();
        let mut output = buffer(launch.output).write().unwrap_or_else(PoisonError::into_inner);
        let nothing = Data::U8(Vec::new());
        let read = |at: usize| match held.get(at) {
            Some(held) => held.as_deref().unwrap_or(&nothing),
            None => &more[at - FEW],
        };
        let mut few = [&nothing; FEW];
        let many: Vec<&Data<T>>;
        let inputs: &[&Data<T>] = if ready.inputs.len() <= FEW {
            few.iter_mut().zip(&ready.inputs).for_each(|(input, &at)| *input = read(at));
            &few[..ready.inputs.len()]
        } else {
            many = ready.inputs.iter().map(|&at| read(at)).collect();
            &many
        };
        let mut operands: [&[T]; MAX_OPERANDS] = [&[]; MAX_OPERANDS];
        let mut bits: [&[u32]; MAX_OPERANDS] = [&[]; MAX_OPERANDS];
        for (i, &(at, len)) in ready.operands.iter().enumerate() {
            match read(at) {
                Data::U32(words) => bits[i] = &words[..len],
                floats => operands[i] = floats.float(len),
            }
        }
        let mut also: [Option<RwLockWriteGuard<Data<T>>>; 2] = [None, None];
        for &(what, place) in &launch.also {
            also[what as usize] = Some(buffer(place).write().unwrap_or_else(PoisonError::into_inner));
        }
        let before = Epilogue { steps: &ready.before, operands, bits, reads_previous: false };
        let reads_previous = ready.steps.read_previous();
        let epilogue = Epilogue { steps: &ready.steps, operands, bits, reads_previous };
        let len = launch.shape.len();
        match &mut *output {
            Data::Float(out) => {
                if let Some(half) = half {
                    let (a, b) = half.product.operands();
                    if !half.is_packed {
                        half.product.pack(inputs[1].float(b), &mut half.packed);
                        half.is_packed = half.frozen;
                    }
                    return half.product.run(inputs[0].float(a), &half.packed, &mut out[..len], &epilogue);
                }
                let convolution = ready.convolution.as_ref();
                let scratch = &mut self.workspace.lock().shared;
                let rows = launch.kernel.gives_per_row().unwrap_or(0);
                let also = also.each_mut().map(|also| also.as_mut().map(|also| also.float_mut(rows)));
                run_floats(launch, convolution, inputs, &mut out[..len], also, [&before, &epilogue], scratch);
            }
            Data::U32(out) => run_integers(launch, inputs, &mut out[..len]),
            Data::U8(_) => unreachable!("no launch writes bytes"),
        }
    }
}

/// Runs `body` on a thread of the rayon pool, so that parallel work inside starts without waking this thread for
/// every launch.
fn on_a_worker(body: impl FnOnce() + Send) {
    if rayon::current_thread_index().is_some() { body() } else { rayon::scope(|_| body()) }
}

/// The fold a reduction asks for.
fn fold_of(kernel: &Kernel) -> Fold {
    match kernel {
        &Kernel::Reduce { kind, outer, extent, inner, .. } => Fold { kind, outer, extent, inner },
        _ => unreachable!("asked of reductions only"),
    }
}

/// A launch whose result is floats, with its stages on the way in and out.
fn run_floats<T: Float>(
    launch: &Launch,
    convolution: Option<&Convolution>,
    inputs: &[&Data<T>],
    out: &mut [T],
    also: Also<T>,
    [before, epilogue]: [&Epilogue<T>; 2],
    scratch: &mut [Line],
) {
    if out.is_empty() {
        return;
    }
    if let Some(convolution) = convolution {
        let (a, b) = convolution.operands();
        return convolution.run(inputs[0].float(a), inputs[1].float(b), out, epilogue, scratch);
    }
    match &launch.kernel {
        Kernel::Map { start } => map::map(*start, inputs[0].float(start.modulo), out, epilogue),
        Kernel::Update => map::update(out, epilogue),
        Kernel::Fill { value } => map::fill(*value, out, epilogue),
        kernel @ &Kernel::Reduce { outer, extent, inner, .. } => {
            fold_of(kernel).run(inputs[0].float(outer * extent * inner), out, before, epilogue, scratch);
        }
        Kernel::Copy { offset, strides, lo, hi } => {
            let view = View { shape: launch.shape, offset: *offset, strides, lo, hi };
            movement::copy(&view, inputs[0].float(inputs[0].len()), out, epilogue);
        }
        Kernel::Concat { outer, columns } => {
            let parts: Vec<_> =
                columns.iter().zip(inputs).map(|(&columns, x)| (columns, x.float(outer * columns))).collect();
            movement::concat(*outer, &parts, out);
        }
        &Kernel::MatMul { m, n, k, ta, tb } => {
            let product = Product { m, n, k, ta, tb };
            matmul::matmul(product, inputs[0].float(m * k), inputs[1].float(k * n), out, epilogue, scratch);
        }
        Kernel::PoolGather(s) => {
            pool::gather(s, inputs[0].float(s.input()), inputs[1].u32(s.position_words()), out, epilogue);
        }
        Kernel::PoolScatter(s) => {
            pool::scatter(s, inputs[0].float(s.output()), inputs[1].u32(s.position_words()), out, epilogue);
        }
        Kernel::AvgPool(s) => pool::average(s, inputs[0].float(s.input()), out, epilogue),
        Kernel::AvgPoolGrad(s) => pool::average_grad(s, inputs[0].float(s.output()), out, epilogue),
        &Kernel::Softmax { rows, columns, log } => {
            rows::softmax(columns, log, inputs[0].float(rows * columns), out, epilogue);
        }
        &Kernel::CrossEntropy { rows, columns } => {
            rows::cross_entropy(columns, inputs[0].float(rows * columns), inputs[1].u32(rows), out, epilogue);
        }
        &Kernel::CrossEntropyGrad { rows, columns } => {
            let (logits, labels) = (inputs[0].float(rows * columns), inputs[1].u32(rows));
            rows::cross_entropy_grad(columns, logits, labels, out, also, epilogue);
        }
        &Kernel::CrossEntropyDirection { rows, columns } => {
            let (logits, labels) = (inputs[0].float(rows * columns), inputs[1].u32(rows));
            rows::cross_entropy_direction(columns, logits, labels, out, also, epilogue);
        }
        &Kernel::Correct { rows, columns } => {
            rows::correct(columns, inputs[0].float(rows * columns), inputs[1].u32(rows), out, epilogue);
        }
        &Kernel::OneHot { rows, columns } => gather::one_hot(columns, inputs[0].u32(rows), out, epilogue),
        &Kernel::GatherRows { rows, row, table, from } => {
            let (len, index) = (table * row, inputs[1].u32(rows));
            match from {
                DType::U8 => gather::gather_bytes(row, inputs[0].u8(len), index, out, epilogue),
                _ => gather::gather_floats(row, inputs[0].float(len), index, out, epilogue),
            }
        }
        &Kernel::Augment { rows, table, image, augment } => {
            let [h, w, c] = image;
            let (images, index) = (inputs[0].u8(table * h * w * c), inputs[1].u32(rows));
            let uniform = inputs[2].float(Augment::DRAWS * rows);
            gather::augmented(augment, image, images, index, uniform, out, epilogue);
        }
        &Kernel::Random { distribution, purpose, rows, row } => {
            let pair = |x: &Data<T>| [x.u32(2)[0], x.u32(2)[1]];
            let stream = Stream { distribution, purpose, key: pair(inputs[0]), counter: pair(inputs[1]) };
            random::random(&stream, row, inputs[2].u32(rows), out, epilogue);
        }
        Kernel::Conv2d(_) | Kernel::Conv2dInputGrad(_) | Kernel::Conv2dWeightGrad(_) => {
            unreachable!("every convolution is planned")
        }
        Kernel::ArgMax { .. } | Kernel::Mask { .. } | Kernel::MaxPoolIndex(_) => {
            unreachable!("{} gives integers", launch.kernel.name())
        }
    }
}

/// A launch whose result is integers; it has no stages.
fn run_integers<T: Float>(launch: &Launch, inputs: &[&Data<T>], out: &mut [u32]) {
    if out.is_empty() {
        return;
    }
    match &launch.kernel {
        &Kernel::ArgMax { rows, columns } => rows::argmax(columns, inputs[0].float(rows * columns), out),
        &Kernel::Mask { len } => mask::mask(inputs[0].float(len), out),
        Kernel::MaxPoolIndex(s) => pool::max_index(s, inputs[0].float(s.input()), out),
        &Kernel::GatherRows { rows, row, table, from: DType::U32 } => {
            gather::gather_integers(row, inputs[0].u32(table * row), inputs[1].u32(rows), out);
        }
        kernel => unreachable!("{} gives floats", kernel.name()),
    }
}
