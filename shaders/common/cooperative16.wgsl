// Cooperative matrices of 16 x 16: factors of f16, sums of f32. (A, B and C are words of the language here.)
const SIZE = 16u;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;
