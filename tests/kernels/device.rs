//! The device itself: memory is counted, errors come back as errors, work is counted, time is measured.

use crate::harness::{Numbers, plain, ways};
use adamant::gpu::{Gpu, adapters};
use adamant::kernels::Compiled;
use adamant::launch::Kernel;
use adamant::{DType, Error, Stretch};

fn fresh() -> Gpu {
    Gpu::open(ways()[0].gpu.summary()).unwrap()
}

#[test]
fn adapters_describe_themselves() {
    for (index, summary) in adapters().iter().enumerate() {
        assert_eq!(summary.index, index);
        assert!(format!("{summary}").contains(&summary.name));
        assert!(summary.max_binding >= 128 << 20 && summary.storage_buffers >= 8);
    }
}

#[test]
fn memory_starts_zero_is_counted_and_given_back() {
    let gpu = fresh();
    let a = gpu.allocate(10, "a").unwrap();
    assert_eq!((a.bytes(), gpu.memory_used()), (10, 12));
    assert_eq!(gpu.read(&[&a]).unwrap(), [vec![0; 10]]);
    let b = a.clone();
    drop(a);
    assert_eq!(gpu.memory_used(), 12);
    drop(b);
    assert_eq!(gpu.memory_used(), 0);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let gpu = fresh();
    gpu.set_memory_budget(1000);
    let _a = gpu.allocate(600, "a").unwrap();
    match gpu.allocate(600, "the second").unwrap_err() {
        Error::OutOfMemory { what, needed, available, .. } => {
            assert_eq!((what.as_str(), needed, available), ("the second", 600, 400));
        }
        other => panic!("{other}"),
    }
    gpu.set_memory_budget(u64::MAX);
    let too_large = gpu.allocate(gpu.max_buffer() + 4, "a giant").unwrap_err();
    assert!(matches!(too_large, Error::OutOfMemory { .. }), "{too_large}");
    assert!(matches!(gpu.allocate(u64::MAX, "all"), Err(Error::OutOfMemory { .. })));
    assert_eq!(gpu.memory_used(), 600);
    // The device goes on.
    assert!(gpu.allocate(600, "b").is_ok());
}

#[test]
fn uploads_and_readbacks_of_any_length() {
    let gpu = fresh();
    let hosts: Vec<Vec<u8>> =
        [1, 2, 3, 4, 5, 1023].iter().map(|&len| (0..len).map(|i| i as u8).collect()).collect();
    let buffers: Vec<_> = hosts.iter().map(|host| gpu.allocate(host.len() as u64, "x").unwrap()).collect();
    for _ in 0..100 {
        buffers.iter().zip(&hosts).for_each(|(buffer, host)| gpu.write(buffer, host).unwrap());
    }
    let before = gpu.counters();
    assert_eq!(gpu.read(&buffers.iter().collect::<Vec<_>>()).unwrap(), hosts);
    let after = gpu.counters();
    assert_eq!((after.readbacks - before.readbacks, after.submissions), (1, 0));
    assert_eq!(after.uploads, 600);
    assert!(matches!(gpu.write(&buffers[0], &[1, 2]), Err(Error::Gpu { .. })));
    assert!(gpu.read(&[]).unwrap().is_empty());
}

#[test]
fn text_that_does_not_validate_is_an_error() {
    let gpu = fresh();
    let good = "@compute @workgroup_size(1) fn main() {}";
    for (text, says) in [
        ("fn main( {}", "expected"),
        ("@compute @workgroup_size(1) fn main() { let a: u32 = 1f; }", "u32"),
        (good, "nothing_such"),
    ] {
        match gpu.pipeline(text, "nothing_such", "a test").map(|_| ()).unwrap_err() {
            Error::Gpu { message, .. } => {
                assert!(message.contains("a test") && message.contains(says), "{message}");
            }
            other => panic!("{other}"),
        }
    }
    // Beyond a limit of the device, which only the driver's side knows.
    let giant = "@compute @workgroup_size(1024, 1024) fn main() {}";
    assert!(matches!(gpu.pipeline(giant, "main", "a test"), Err(Error::Gpu { .. })));
    let pipeline = gpu.pipeline(good, "main", "a test").unwrap();
    assert!(matches!(gpu.bind(&pipeline, &[], &[], [70_000, 1, 1]), Err(Error::Gpu { .. })));
}

#[test]
fn a_lost_device_says_so() {
    let gpu = fresh();
    let a = gpu.allocate(4, "a").unwrap();
    gpu.destroy();
    for error in [
        gpu.allocate(4, "b").map(|_| ()).unwrap_err(),
        gpu.write(&a, &[0; 4]).unwrap_err(),
        gpu.read(&[&a]).map(|_| ()).unwrap_err(),
        gpu.submit(|_| {}).unwrap_err(),
        gpu.wait().unwrap_err(),
    ] {
        assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
    }
}

#[test]
fn a_plan_is_one_submission_and_its_pipelines_are_shared() {
    let gpu = fresh();
    let len = 1000;
    let mut launch = plain(Kernel::Map { start: Stretch { div: 1, modulo: len } }, 1, &[len], DType::F32);
    launch.stages =
        vec![adamant::launch::Stage::Unary(adamant::tape::Unary::Affine { scale: 1.0, shift: 1.0 })];
    let mut back = launch.clone();
    (back.inputs, back.output) = (vec![launch.output], launch.inputs[0]);
    let [a, b] = ["a", "b"].map(|what| gpu.allocate(4 * len as u64, what).unwrap());
    let compiled = Compiled::new(&gpu, &[launch, back], 0, &[a], std::slice::from_ref(&b)).unwrap();
    assert_eq!((compiled.len(), gpu.pipelines()), (2, 1));
    let before = gpu.counters();
    gpu.submit(|pass| (0..50).for_each(|_| compiled.encode(pass))).unwrap();
    let after = gpu.counters();
    assert_eq!((after.submissions - before.submissions, after.dispatches - before.dispatches), (1, 100));
    assert_eq!(after.readbacks, before.readbacks);
    let floats: Vec<f32> = bytemuck::pod_collect_to_vec(&gpu.read(&[&b]).unwrap()[0]);
    assert!(floats.iter().all(|&x| x == 100.0), "each dispatch sees what the one before wrote");
}

#[test]
fn launches_are_timed() {
    for way in ways() {
        let gpu = &way.gpu;
        let (small, large) = (1000, 1_000_000);
        let map = |len| plain(Kernel::Map { start: Stretch { div: 1, modulo: len } }, 1, &[len], DType::F32);
        let buffer = |what| gpu.allocate(4 * large as u64, what).unwrap();
        let (x, y) = (buffer("x"), buffer("y"));
        gpu.write(&x, Numbers::new(1).floats(large).bytes()).unwrap();
        let launches = [map(small), map(large)];
        let compiled = Compiled::new(gpu, &launches, 0, &[y], &[x]).unwrap();
        let mut times = Vec::new();
        // The first run compiles.
        for _ in 0..2 {
            times = gpu.timed(2, |i, pass| compiled.encode_launch(i, pass)).unwrap();
        }
        assert_eq!(times.len(), 2);
        assert!(times[1] > times[0] && times[1].as_secs() < 10, "{times:?} on {}", way.name);
    }
}
