//! Memory of plans: slots are shared safely, bytes are known before they are allocated, and what does not fit is an
//! error that says what would.

use crate::models::{classifier, pgd};
use crate::random_tapes::{self, Instruction};
use adamant::attack::{Classifier, Norm, RecordedAttack};
use adamant::data::Dataset;
use adamant::launch::{Kernel, Launch, Operand, Place, Stage};
use adamant::nn::{Mode, Net, architectures};
use adamant::plan::{Precision, Schedule, largest_batch, last_batch};
use adamant::train::{Recipe, Trainer};
use adamant::{DType, Device, Error, Plan, Result, Store, Tape};
use proptest::prelude::*;

/// A value in a slot: the launch that writes it, and the launches that read it before the slot is written again.
pub struct Life {
    pub slot: usize,
    pub len: usize,
    pub writer: usize,
    pub readers: Vec<usize>,
}

/// Buffers a launch reads, with the fewest elements they must hold as far as the launch says.
fn reads(launch: &Launch) -> Vec<(Place, usize)> {
    let least = |input: usize| match (&launch.kernel, input) {
        (Kernel::Map { start }, _) => start.modulo,
        (Kernel::Reduce { outer, extent, inner, .. }, _) => outer * extent * inner,
        (Kernel::MatMul { m, k, .. }, 0) => m * k,
        (Kernel::MatMul { n, k, .. }, _) => n * k,
        (Kernel::Concat { outer, columns }, input) => outer * columns[input],
        (Kernel::Softmax { rows, columns, .. }, _) => rows * columns,
        _ => 1,
    };
    let operands = launch.operands().into_iter().map(|(place, stretch)| (place, stretch.modulo));
    launch.inputs.iter().enumerate().map(|(i, &place)| (place, least(i))).chain(operands).collect()
}

/// Elements of what a launch gives beside its output.
fn rows(launch: &Launch) -> usize {
    launch.kernel.gives_per_row().unwrap_or(0)
}

/// The values that pass through the slots in a run.
///
/// # Panics
/// Where the launch list is wrong: a slot read before it is written, or too small, or of another type; a launch that
/// reads what it writes; a value that is lost because the slot is written again before anyone has read it; a prologue
/// that reads or writes what the other launches write, or whose results they overwrite.
pub fn lives(schedule: &Schedule) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    let mut current: Vec<Option<usize>> = vec![None; schedule.slots.len()];
    for (at, launch) in schedule.launches.iter().enumerate() {
        let line = format!("launch {at}, {launch}, of\n{schedule}");
        for (place, least) in reads(launch) {
            assert!(launch.outputs().all(|output| place != output), "reads what it writes: {line}");
            if let Place::Slot(slot) = place {
                let life =
                    current[slot].unwrap_or_else(|| panic!("t{slot} is read before it is written: {line}"));
                let have = lives[life].len;
                assert!(have >= least, "t{slot} holds {have} of {least} elements: {line}");
                lives[life].readers.push(at);
            }
        }
        let len = |place| if place == launch.output { launch.shape.len() } else { rows(launch) };
        for (i, place) in launch.outputs().enumerate() {
            let Place::Slot(slot) = place else { continue };
            let previous = launch
                .stages
                .iter()
                .any(|stage| matches!(stage, Stage::Binary { operand: Operand::Previous, .. }));
            assert!(!previous && launch.kernel != Kernel::Update, "a temporary is updated: {line}");
            let dtype = if place == launch.output { launch.dtype } else { DType::F32 };
            assert_eq!(schedule.slots[slot].dtype, dtype, "{line}");
            assert!(schedule.slots[slot].len >= len(place), "t{slot} is too small: {line}");
            assert!(launch.outputs().skip(i + 1).all(|other| other != place), "writes twice: {line}");
            current[slot] = Some(lives.len());
            lives.push(Life { slot, len: len(place), writer: at, readers: Vec::new() });
        }
    }
    let body = schedule.prologue..schedule.launches.len();
    for (at, launch) in schedule.launches[..schedule.prologue].iter().enumerate() {
        assert!(
            matches!(launch.output, Place::Slot(_)),
            "launch {at} is frozen and writes a tensor:\n{schedule}"
        );
        for (place, _) in reads(launch) {
            let written = schedule.launches[body.clone()]
                .iter()
                .any(|launch| launch.outputs().any(|output| output == place));
            let tensor = matches!(place, Place::Tensor(_));
            assert!(!tensor || !written, "launch {at} reads what the plan writes:\n{schedule}");
        }
    }
    for life in
        lives.iter().filter(|life| life.writer < body.start && life.readers.iter().any(|r| body.contains(r)))
    {
        let place = Place::Slot(life.slot);
        assert!(schedule.frozen(place), "t{} is read each time and overwritten:\n{schedule}", life.slot);
    }
    for life in &lives {
        assert!(!life.readers.is_empty(), "t{} of launch {} is lost in\n{schedule}", life.slot, life.writer);
    }
    lives
}

/// Bytes of a value.
fn bytes(schedule: &Schedule, life: &Life) -> u64 {
    schedule.slots[life.slot].dtype.buffer_bytes(life.len)
}

/// Most bytes that are needed at one time.
fn peak(schedule: &Schedule, lives: &[Life]) -> u64 {
    let alive =
        |at: usize, life: &&Life| life.writer <= at && life.readers.iter().any(|&reader| reader >= at);
    let now = |at: usize| lives.iter().filter(|life| alive(at, life)).map(|life| bytes(schedule, life)).sum();
    (0..schedule.launches.len()).map(now).max().unwrap_or(0)
}

#[test]
fn slots_are_shared_without_losing_a_value() {
    let data = dataset([28, 28, 1]);
    for model in ["mlp", "mnist-fast", "mnist-madry", "preact-resnet18-w4", "resnet18-w4"] {
        let recipe = Recipe { model: model.into(), batch: 8, validation: 0, ..Recipe::default() };
        let architecture = architectures::by_name(model, [28, 28, 1], 10).unwrap();
        let trainer = Trainer::new(recipe, architecture, &data, &Device::cpu()).unwrap();
        let [load, step, update] = trainer.schedules(8).unwrap();
        assert!(lives(&load).is_empty() || load.temporary_bytes() > 0);
        for schedule in [step, update] {
            let lives = lives(&schedule);
            let all: u64 = lives.iter().map(|life| bytes(&schedule, life)).sum();
            let (peak, planned) = (peak(&schedule, &lives), schedule.temporary_bytes());
            assert!(peak <= planned && planned < all, "{model}: {peak} <= {planned} < {all}");
            // Whole slots of one type leave some of the memory of other values idle; on these networks little.
            assert!(
                planned as f64 <= 1.45 * peak as f64,
                "{model}: {planned} planned, {peak} needed at a time"
            );
        }
    }
}

#[test]
fn the_gradient_of_one_weight_is_used_before_the_next_is_made() {
    let data = dataset([28, 28, 1]);
    let recipe = Recipe { model: "preact-resnet18-w4".into(), batch: 8, validation: 0, ..Recipe::default() };
    let architecture = architectures::by_name(&recipe.model, [28, 28, 1], 10).unwrap();
    let trainer = Trainer::new(recipe, architecture, &data, &Device::cpu()).unwrap();
    let [_, _, update] = trainer.schedules(8).unwrap();
    let gradients: Vec<Life> = lives(&update)
        .into_iter()
        .filter(|life| matches!(update.launches[life.writer].kernel, Kernel::Conv2dWeightGrad(_)))
        .collect();
    assert_eq!(gradients.len(), 20, "{update}");
    for pair in gradients.windows(2) {
        let last = pair[0].readers.iter().max().unwrap();
        assert!(*last < pair[1].writer, "launch {} and {last} of\n{update}", pair[0].writer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn slots_of_random_tapes_are_shared_without_losing_a_value(
        code in prop::collection::vec(any::<Instruction>(), 1..40),
        choices in prop::collection::vec(any::<[u8; 2]>(), 1..7),
        fuse in any::<bool>(),
    ) {
        let tape = Tape::new();
        let values = random_tapes::record(&tape, &code);
        for (name, value) in random_tapes::assignments(&values, &choices) {
            tape.assign(&name, value);
        }
        lives(&Schedule::new(&tape, fuse).unwrap());
    }
}

/// Twenty images in ten classes.
fn dataset(image: [usize; 3]) -> Dataset {
    let len = 20 * image.iter().product::<usize>();
    let images = (0..len).map(|i| (i * 37 % 251) as u8).collect();
    let classes = (0..10).map(|class| class.to_string()).collect();
    Dataset::new("test", "made here", image, images, (0..20).map(|i| i % 10).collect(), classes).unwrap()
}

/// A store on the first GPU adapter, software ones included.
pub fn gpu_store() -> Store {
    let adapters = Device::adapters();
    let adapter = adapters.first().expect(
        "there is no GPU adapter to test with. A software one will do: on Debian and Ubuntu install \
         mesa-vulkan-drivers, on Arch vulkan-swrast",
    );
    Store::new(&Device::gpu(adapter).unwrap())
}

/// An elementwise network on a batch of images: gradients by the input.
fn schedule(batch: usize) -> Result<Schedule> {
    let tape = Tape::new();
    let x = tape.source("x", [batch, 100], DType::F32);
    let y = (x.tanh().square() - x.exp().sum(&[1])).silu();
    tape.assign("gradient", tape.grad(y.square(), &[x])[0]);
    Schedule::new(&tape, true)
}

#[test]
fn a_gpu_allocates_exactly_the_bytes_that_are_planned() {
    let store = gpu_store();
    let device = store.device().clone();
    let used = || device.memory().unwrap().used;
    let before = used();
    let planned = schedule(37).unwrap();
    let (temporary, tensors) = (planned.temporary_bytes(), planned.new_tensor_bytes(&store));
    let plan = Plan::of(planned, &store).unwrap();
    assert_eq!(used() - before, temporary + tensors);
    assert_eq!(store.bytes(), tensors);
    // A second plan finds the tensors and works in the same temporaries; the last plan dropped gives those back.
    let again = schedule(37).unwrap();
    assert_eq!(again.new_tensor_bytes(&store), 0);
    let again = Plan::of(again, &store).unwrap();
    assert_eq!((used() - before, store.temporary_bytes()), (temporary + tensors, temporary));
    again.run().unwrap();
    drop(plan);
    assert_eq!(used() - before, temporary + tensors);
    drop(again);
    device.wait().unwrap();
    assert_eq!(used() - before, tensors);
}

#[test]
fn a_store_counts_what_its_plans_take_on_a_gpu_scratch_memory_too() {
    let store = gpu_store();
    let used = || store.device().memory().unwrap().used;
    let before = used();
    let architecture = architectures::by_name("resnet18-w4", [16, 16, 3], 10).unwrap();
    let tape = Tape::new();
    let net = Net::new(&tape, Mode::Train);
    let x = tape.source("x", [8, 16, 16, 3], DType::F32);
    let logits = architecture.forward(&net, x);
    let weights = net.weights();
    let vars: Vec<_> = weights.iter().map(|(_, var)| *var).collect();
    for ((name, weight), gradient) in weights.iter().zip(tape.grad(logits, &vars)) {
        tape.assign(name, *weight - gradient);
    }
    let plan = Plan::compile(&tape, &store).unwrap();
    assert!(plan.bytes() > plan.temporary_bytes(), "no launch has scratch memory");
    assert_eq!(store.temporary_bytes(), plan.bytes());
    assert_eq!(used() - before, store.bytes() + plan.bytes());
}

#[test]
fn in_half_precision_too_what_is_planned_is_what_is_taken() {
    let architecture = architectures::by_name("mnist-fast", [28, 28, 1], 10).unwrap();
    let on = Classifier { precision: Precision::F16, ..classifier(architecture.as_ref(), Mode::Eval) };
    let names = adamant::attack::Names::new("batch", "train");
    let schedule = || RecordedAttack::schedule_step(&pgd(Norm::Linf), on, &names, 32, false).unwrap();
    for store in [gpu_store(), Store::new(&Device::cpu())] {
        let device = store.device().clone();
        let before = device.memory().map(|memory| memory.used);
        // The most that is free and does not do, and one byte more.
        device.set_memory_budget(before.unwrap_or(0));
        let needed = match Plan::of(schedule(), &store).err() {
            Some(Error::OutOfMemory { needed, .. }) => needed,
            other => panic!("{}: {other:?}", device.describe()),
        };
        device.set_memory_budget(before.unwrap_or(0) + needed);
        let plan = Plan::of(schedule(), &store).unwrap();
        plan.run().unwrap();
        assert_eq!(store.temporary_bytes(), plan.bytes(), "{}", device.describe());
        assert_eq!(store.bytes() + plan.bytes(), needed, "{}", device.describe());
        if let Some(before) = before {
            assert_eq!(device.memory().unwrap().used - before, needed);
        }
    }
}

#[test]
fn a_plan_that_does_not_fit_is_refused_before_anything_is_allocated() {
    let store = gpu_store();
    let device = store.device().clone();
    let planned = |batch| {
        let schedule = schedule(batch).unwrap();
        schedule.temporary_bytes() + schedule.new_tensor_bytes(&store)
    };
    let (fits, over) = (planned(37), planned(38));
    assert!(over > fits);
    device.set_memory_budget(device.memory().unwrap().used + over - 1);
    assert_eq!(largest_batch(&store, 64, schedule), Some(37));
    assert_eq!(largest_batch(&store, 20, schedule), Some(20));
    let before = device.memory().unwrap().used;
    let error = Plan::of(schedule(38).unwrap(), &store).err().unwrap();
    match &error {
        Error::OutOfMemory { needed, available, .. } => assert_eq!((*needed, *available), (over, over - 1)),
        other => panic!("{other}"),
    }
    assert_eq!(device.memory().unwrap().used, before);
    assert!(store.names().is_empty(), "{:?}", store.names());
    // What does not fit beside another plan fits in the memory of both.
    let plan = Plan::of(schedule(37).unwrap(), &store).unwrap();
    plan.run().unwrap();
    Plan::of(schedule(37).unwrap(), &store).unwrap().run().unwrap();
    device.set_memory_budget(device.memory().unwrap().used);
    let elsewhere = Store::new(&device);
    assert_eq!(largest_batch(&elsewhere, 64, schedule), None);
}

#[test]
fn plans_of_one_thread_share_temporaries_and_plans_of_two_do_not() {
    let store = Store::new(&Device::cpu());
    let planned = |batch| {
        // The tensors have the batch's shape.
        store.names().iter().for_each(|name| store.remove(name));
        Plan::of(schedule(batch).unwrap(), &store).unwrap()
    };
    let (small, large) = (planned(7), planned(50));
    // The larger plan shares what is large enough for some of its slots.
    let both = store.temporary_bytes();
    assert!(large.temporary_bytes() < both && both <= small.temporary_bytes() + large.temporary_bytes());
    let again = planned(20);
    assert_eq!(store.temporary_bytes(), both);
    let elsewhere = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            store.names().iter().for_each(|name| store.remove(name));
            let plan = Plan::of(schedule(7).unwrap(), &store).unwrap();
            (store.temporary_bytes(), plan.temporary_bytes())
        });
        other.join().unwrap()
    });
    assert_eq!(elsewhere.0, both + elsewhere.1);
    drop((small, large, again));
    assert_eq!(store.temporary_bytes(), 0);
}

#[test]
fn a_training_step_takes_no_more_than_its_largest_plan() {
    let data = dataset([28, 28, 1]);
    for model in ["mnist-fast", "preact-resnet18-w4"] {
        let recipe = Recipe { model: model.into(), batch: 8, validation: 0, ..Recipe::default() };
        let architecture = architectures::by_name(model, [28, 28, 1], 10).unwrap();
        let trainer = Trainer::new(recipe, architecture, &data, &Device::cpu()).unwrap();
        let schedules = trainer.schedules(8).unwrap();
        let [load, step, update] = &schedules.each_ref().map(Schedule::temporary_bytes);
        let scratch =
            schedules.iter().map(|s| adamant::cpu::scratch_bytes::<f32>(&s.launches)).max().unwrap();
        let (all, largest) = (load + step + update, *load.max(step).max(update));
        let taken = trainer.memory().1 - scratch;
        // Not quite the largest plan: the sizes of their slots differ.
        assert!(largest <= taken && taken < all, "{model}: {largest} <= {taken} < {all}");
        assert!(taken as f64 <= 1.25 * largest as f64, "{model}: {taken} for a plan of {largest}");
    }
}

#[test]
fn an_attack_keeps_of_its_activations_which_are_positive() {
    for model in ["preact-resnet18-w8", "resnet18-w8"] {
        let architecture = architectures::by_name(model, [32, 32, 3], 10).unwrap();
        let on = classifier(architecture.as_ref(), Mode::Eval);
        let names = adamant::attack::Names::new("batch", "train");
        let tape = RecordedAttack::record_step(&pgd(Norm::Linf), on, &names, 64, false);
        let schedule = Schedule::new(&tape, true).unwrap();
        let lives = lives(&schedule);
        let backward = |at: &usize| schedule.scopes[*at].ends_with('\'');
        // Of 64 x 32 x 32 x 8 = 2^19 elements down to 2^16: the last block has as many.
        let kept = lives.iter().filter(|life| {
            let len = schedule.launches[life.writer].shape.len();
            life.writer >= schedule.prologue
                && len >= 1 << 16
                && !backward(&life.writer)
                && life.readers.iter().any(backward)
        });
        // The last activations are read again at once: they stay as they are.
        assert!(kept.count() <= 3, "{model}\n{schedule}");
        let masks = schedule.launches.iter().filter(|launch| matches!(launch.kernel, Kernel::Mask { .. }));
        assert!(masks.count() >= 15, "{model}\n{schedule}");
    }
}

#[test]
fn an_attacks_plans_have_the_bytes_of_its_batch() {
    // Temporaries and tensors of an attack grow in proportion to the batch, but for weights and constants.
    let architecture = architectures::by_name("mnist-fast", [28, 28, 1], 10).unwrap();
    let on = classifier(architecture.as_ref(), Mode::Eval);
    let names = adamant::attack::Names::new("batch", "train");
    let bytes = |batch| {
        let tape = RecordedAttack::record_step(&pgd(Norm::Linf), on, &names, batch, false);
        Schedule::new(&tape, true).unwrap().temporary_bytes()
    };
    assert_eq!(bytes(40), 10 * bytes(4));
    let tape = Tape::new();
    let net = Net::new(&tape, Mode::Eval);
    let x = tape.source("x", on.images(1), DType::F32);
    tape.assign("logits", architecture.forward(&net, x));
    assert!(Schedule::new(&tape, true).unwrap().temporary_bytes() < bytes(1));
}

#[test]
fn a_batch_takes_half_of_the_machines_memory_at_most() {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return };
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).unwrap();
    let free = line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10;
    // An image takes a hundredth of what is free. Nothing of it is allocated.
    let wide = (free / 400) as usize;
    let recorded = |batch: usize| {
        let tape = Tape::new();
        let x = tape.source("x", [wide], DType::F32).reshape([1, wide]);
        tape.assign("y", x.broadcast_to([batch, wide]));
        Schedule::new(&tape, true).map(|schedule| [schedule])
    };
    let device = Device::cpu();
    let store = Store::new(&device);
    // Other programs take and give memory meanwhile: what there is is looked at before and after, and again where it changed.
    let looks: Vec<[usize; 3]> = (0..20)
        .map(|_| [last_batch, largest_batch, last_batch].map(|batch| batch(&store, 1000, recorded).unwrap()))
        .collect();
    let steady = |[before, half, after]: &[usize; 3]| before == after && half.abs_diff(before / 2) <= 1;
    assert!(looks.iter().any(steady), "all, half and all again: {looks:?}");
    // A budget is what may be taken, and is taken.
    device.set_memory_budget(free / 10);
    assert_eq!(largest_batch(&store, 1000, recorded), last_batch(&store, 1000, recorded));
}
