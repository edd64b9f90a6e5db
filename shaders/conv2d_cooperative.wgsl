// Convolution and both gradients in half precision by cooperative matrices, as implicit GEMM: VERB says which,
// common/conv2d.wgsl how.
//
// Bindings: a is x [N,H,W,C], dy [N,P,Q,K], x; b is w [R,S,C/G,K], w, dy; out is y, dx, dw (with the depth shared,
// [shares,R,S,C/G,K] of unfinished sums, which matmul_shares.wgsl adds up).
// Tiling: common/gemm_cooperative.wgsl; its loads come from the included a_*.wgsl and b_*.wgsl.
enable f16;
enable wgpu_cooperative_matrix;

// 1 where the left operand's rows are contiguous: the weight gradient.
const A_ROWS = 0u;
// 1 where the right operand's columns are contiguous: all but the input gradient.
const B_COLUMNS = 1u;

// #include common/finish.wgsl
// #include common/out_scalar.wgsl
// #include common/store_scalar.wgsl
// #include common/index.wgsl
// #include common/conv2d_params.wgsl
// #include common/conv2d.wgsl
// #include common/a_vec4.wgsl
// #include common/b_vec4.wgsl
// #include common/cooperative16.wgsl
// #include common/gemm_cooperative.wgsl
