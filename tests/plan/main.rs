//! What a plan promises: the fused plan gives the bits of the unfused one, nothing is launched or kept that was not
//! asked for, memory is never written while someone still needs it, and mistakes come back as errors.

mod fusion;
mod half;
mod launches;
mod memory;
mod mistakes;
mod models;
mod random_tapes;
mod sharing;

use adamant::philox;
use adamant::tape::Purpose;
use adamant::{Host, Store};

/// Uniform numbers in [-1, 1), the same in every run; another `stream` gives others.
pub fn uniform(stream: u32, len: usize) -> Vec<f64> {
    let draw = |i| 2.0 * philox::uniform([7, 11], Purpose::TEST, [0, 0], stream, i) - 1.0;
    (0..len as u32).map(draw).collect()
}

/// Everything a store holds, floats as bits (every NaN as the same one).
pub fn bits(store: &Store) -> Vec<(String, Vec<u64>)> {
    let names = store.names();
    let hosts = store.read(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    names.into_iter().zip(hosts.iter().map(host_bits)).collect()
}

/// The bits of a tensor.
pub fn host_bits(host: &Host) -> Vec<u64> {
    let bits = |x: f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
    host.to_f64().into_iter().map(bits).collect()
}

/// Fails with the name of the first tensor that differs.
pub fn assert_same_bits(left: &Store, right: &Store, what: &str) {
    let (left, right) = (bits(left), bits(right));
    assert_eq!(
        left.iter().map(|tensor| &tensor.0).collect::<Vec<_>>(),
        right.iter().map(|tensor| &tensor.0).collect::<Vec<_>>(),
        "{what}: other tensors"
    );
    for ((name, left), (_, right)) in left.iter().zip(&right) {
        if let Some(at) = (0..left.len()).find(|&i| left[i] != right[i]) {
            let (left, right) = (f64::from_bits(left[at]), f64::from_bits(right[at]));
            panic!("{what}: `{name}` differs at element {at}: {left:e} and {right:e}");
        }
    }
}
