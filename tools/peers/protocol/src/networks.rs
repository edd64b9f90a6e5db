//! W1's network and W2's ResNet-18, over the operations that a peer offers.

/// What the networks are made of. Tensors are NCHW, filters OIHW, linear weights `[outputs, inputs]`.
pub trait Engine {
    /// A tensor of any rank.
    type Tensor: Clone;
    /// The parameter of this name.
    fn parameter(&self, name: &str) -> Self::Tensor;
    /// A convolution, with the bias of parameter `bias` if there is one.
    fn conv(
        &self,
        x: Self::Tensor,
        weight: &str,
        bias: Option<&str>,
        stride: usize,
        padding: usize,
    ) -> Self::Tensor;
    /// Batch norm with the parameters of `name`: running statistics, or in training those of the batch, moving the
    /// running ones.
    fn batch_norm(&self, name: &str, x: Self::Tensor) -> Self::Tensor;
    /// The larger of x and 0.
    fn relu(&self, x: Self::Tensor) -> Self::Tensor;
    /// The sum.
    fn add(&self, a: Self::Tensor, b: Self::Tensor) -> Self::Tensor;
    /// `[N, C, H, W]` to `[N, C H W]`.
    fn flatten(&self, x: Self::Tensor) -> Self::Tensor;
    /// `[N, C, H, W]` to the mean `[N, C]`.
    fn mean(&self, x: Self::Tensor) -> Self::Tensor;
    /// `x w^T + b` by the parameters of `name`.
    fn linear(&self, name: &str, x: Self::Tensor) -> Self::Tensor;
}

/// Logits of the network `net`.
pub fn forward<E: Engine>(engine: &E, net: &str, x: E::Tensor) -> E::Tensor {
    if net == "cnn" { cnn(engine, x) } else { resnet18(engine, x) }
}

fn cnn<E: Engine>(e: &E, x: E::Tensor) -> E::Tensor {
    let conv = |x, name: &str, stride| {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        e.relu(e.conv(x, &weight, Some(&bias), stride, 1))
    };
    let x = conv(conv(conv(x, "conv1", 1), "conv2", 2), "conv3", 2);
    e.linear("fc2", e.relu(e.linear("fc1", e.flatten(x))))
}

fn resnet18<E: Engine>(e: &E, x: E::Tensor) -> E::Tensor {
    let norm_conv = |x, conv: &str, norm: &str, stride, padding| {
        e.batch_norm(norm, e.conv(x, &format!("{conv}.weight"), None, stride, padding))
    };
    let mut x = e.relu(norm_conv(x, "conv1", "bn1", 1, 1));
    for stage in 0..4 {
        for block in 0..2 {
            let name = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
            let begins = stage > 0 && block == 0;
            let stride = if begins { 2 } else { 1 };
            let y = e.relu(norm_conv(x.clone(), &name("conv1"), &name("bn1"), stride, 1));
            let y = norm_conv(y, &name("conv2"), &name("bn2"), 1, 1);
            let shortcut =
                if begins { norm_conv(x, &name("shortcut.0"), &name("shortcut.1"), 2, 0) } else { x };
            x = e.relu(e.add(y, shortcut));
        }
    }
    e.linear("linear", e.mean(x))
}
