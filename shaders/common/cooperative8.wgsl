// Cooperative matrices of 8 x 8: factors of f16, sums of f32. (A, B and C are words of the language here.)
const SIZE = 8u;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;
