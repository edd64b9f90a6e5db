// What is done to each element before it is folded: nothing, unless the launch says so, for which the host puts its
// own text here.
fn before(v: Element, i: u32) -> Element {
    return v;
}
