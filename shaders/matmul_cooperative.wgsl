// Matrix product in half precision by cooperative matrices: out [m,n] = finish(a b), a and b transposed first where
// they are stored so.
//
// Bindings: a [m,k] (or [k,m]), b [k,n] (or [n,k]), out [m,n] (with the depth shared, [shares,m,n] of unfinished sums,
// which matmul_shares.wgsl adds up).
// Tiling: common/gemm_cooperative.wgsl; its loads come from the included a_*.wgsl and b_*.wgsl, the indices from
// common/matmul.wgsl.
enable f16;
enable wgpu_cooperative_matrix;

// 1 where a is stored [k, m].
const A_ROWS = 0u;
// 1 where b is stored [k, n].
const B_COLUMNS = 1u;

// #include common/finish.wgsl
// #include common/out_scalar.wgsl
// #include common/store_scalar.wgsl
// #include common/index.wgsl
// #include common/matmul.wgsl
// #include common/a_vec4.wgsl
// #include common/b_vec4.wgsl
// #include common/cooperative16.wgsl
// #include common/gemm_cooperative.wgsl
