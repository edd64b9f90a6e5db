// The number of a workgroup in a grid that spills from x into y.
fn flat(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.x + group.y * groups.x;
}
