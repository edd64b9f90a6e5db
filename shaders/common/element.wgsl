// Which elements an invocation handles, PER of them: every eight lanes have 8 PER in a row and go through them together.
// On software Vulkan, where a subgroup of eight runs to its end before the next one starts, memory is then read from
// front to back (elements a workgroup apart take 2.3 times as long once they do not fit the caches); on hardware PER
// is 1.
fn element(tile: u32, lane: u32, j: u32) -> u32 {
    return tile * (WORKGROUP * PER) + (lane / 8u) * (8u * PER) + j * 8u + lane % 8u;
}
