//! Convolution and pooling: what slides over rows and columns.

use super::super::Why;
use super::super::build::Builder;
use super::super::call::Call;
use super::super::value::{Activation, Order};
use super::Inputs;
use super::linear::layer;
use crate::nn::{Layout, Role};
use crate::tape::{Conv2d, Pool};

/// Zeros before and after rows and columns.
type Around = [[usize; 2]; 2];

/// Far below whatever a maximum is taken of.
const LOWEST: f64 = -1e30;

/// Where windows stand.
struct Windows {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    /// Padding that the file asks for.
    around: Around,
    /// What a last window that is not whole reaches beyond it (`ceil_mode`).
    beyond: [usize; 2],
    /// Rows and columns of the result.
    output: [usize; 2],
}

impl Windows {
    /// As the attributes say, over an image of these rows and columns.
    fn of(call: &Call<'_>, kernel: [usize; 2], image: [usize; 2], ceil: bool) -> Result<Windows, Why> {
        let stride = call.extents("strides", 1, 1)?;
        let dilation = call.extents("dilations", 1, 1)?;
        let pads: [usize; 4] = call.extents("pads", 0, 0)?;
        let mut around = [[pads[0], pads[2]], [pads[1], pads[3]]];
        let reach = [0, 1].map(|i| dilation[i] * (kernel[i] - 1) + 1);
        match call.text("auto_pad", "NOTSET")? {
            "NOTSET" => {}
            "VALID" => around = [[0; 2]; 2],
            same @ ("SAME_UPPER" | "SAME_LOWER") => {
                for i in 0..2 {
                    let wanted = (image[i].div_ceil(stride[i]) - 1) * stride[i] + reach[i];
                    let all = wanted.saturating_sub(image[i]);
                    let (less, more) = (all / 2, all - all / 2);
                    around[i] = if same == "SAME_UPPER" { [less, more] } else { [more, less] };
                }
            }
            other => return Err(format!("has auto_pad = `{other}`, which is not known")),
        }
        let (mut output, mut beyond) = ([0; 2], [0; 2]);
        for i in 0..2 {
            let [before, after] = around[i];
            let whole = image[i] + before + after;
            let room = whole.checked_sub(reach[i]).ok_or_else(|| {
                format!("has a window of {reach:?} that is larger than its padded input of {image:?}")
            })?;
            output[i] = room / stride[i] + 1;
            // A window more, if it begins before the padding behind the image does.
            if ceil && !room.is_multiple_of(stride[i]) && output[i] * stride[i] < image[i] + before {
                beyond[i] = output[i] * stride[i] + reach[i] - whole;
                output[i] += 1;
            }
        }
        Ok(Windows { kernel, stride, dilation, around, beyond, output })
    }

    /// Padding that is the same before and after, if it is.
    fn symmetric(&self) -> Option<[usize; 2]> {
        let [rows, columns] = self.around;
        (self.beyond == [0, 0] && rows[0] == rows[1] && columns[0] == columns[1])
            .then_some([rows[0], columns[0]])
    }

    /// Padding of a value `[C,H,W]`.
    fn padding(&self, with_beyond: bool) -> [[usize; 2]; 3] {
        let beyond = if with_beyond { self.beyond } else { [0, 0] };
        let [rows, columns] = self.around;
        [[0, 0], [rows[0], rows[1] + beyond[0]], [columns[0], columns[1] + beyond[1]]]
    }

    /// As a pooling, with this padding.
    fn pool(&self, padding: [usize; 2]) -> Pool {
        Pool { kernel: self.kernel, stride: self.stride, padding }
    }

    /// The padding, if a pooling takes it as it is.
    fn pooled(&self) -> Option<Pool> {
        let padding = self.symmetric()?;
        (0..2).all(|i| padding[i] * 2 <= self.kernel[i]).then(|| self.pool(padding))
    }
}

impl Builder<'_> {
    pub fn conv(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let x = self.image(inputs.activation(0)?)?;
        let [channels, rows, columns] = x.image()?;
        let filter = inputs.constant(1)?;
        let [outputs, width, kh, kw] = filter.dims[..] else {
            return Err(format!("has a filter of {:?}, but 4 axes are supported", filter.dims));
        };
        let groups = usize::try_from(call.int("group", 1)?)
            .ok()
            .filter(|&groups| groups > 0)
            .ok_or("has no groups")?;
        if filter.len() == 0 || Some(channels) != width.checked_mul(groups) || outputs % groups != 0 {
            return Err(format!(
                "has a filter of {:?} with {groups} groups for {channels} channels, which does not fit",
                filter.dims
            ));
        }
        let kernel = call.extents("kernel_shape", 1, 0)?;
        if kernel != [0, 0] && kernel != [kh, kw] {
            return Err(format!("has kernel_shape {kernel:?}, but a filter of {:?}", filter.dims));
        }
        if kh.max(kw) > 1 << 14 {
            return Err(format!("has a filter of {:?}, which is too large", filter.dims));
        }
        let windows = Windows::of(call, [kh, kw], [rows, columns], false)?;
        let (x, padding) = match windows.symmetric() {
            Some(padding) => (x, padding),
            None => (self.padded(&x, &windows.padding(false), 0.0)?, [0, 0]),
        };
        let base = layer(filter);
        let shape = [kh, kw, width, outputs];
        let weight =
            self.weight(&base, ("weight", Role::Weight), shape, Layout::Conv, filter.as_floats()?)?;
        let conv = Conv2d { stride: windows.stride, padding, dilation: windows.dilation, groups };
        let dims = vec![outputs, windows.output[0], windows.output[1]];
        let y = self.apply(&[&x], dims, Order::Image, move |net, x| x[0].conv2d(weight.var(net), conv))?;
        self.products.insert(y.slot);
        let Some(bias) = inputs.optional(2)? else { return Ok(y) };
        if bias.dims != [outputs] {
            return Err(format!("has a bias of {:?} for {outputs} filters", bias.dims));
        }
        let bias = self.weight(&base, ("bias", Role::Bias), [outputs], Layout::Plain, bias.as_floats()?)?;
        self.apply(&[&y], y.dims.clone(), Order::Image, move |net, x| x[0] + bias.var(net))
    }

    /// The image that a pooling goes over, and where its windows stand.
    fn windows(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<(Activation, Windows), Why> {
        let x = self.image(inputs.activation(0)?)?;
        let [_, rows, columns] = x.image()?;
        let kernel = call.extents("kernel_shape", 1, 0)?;
        if kernel.contains(&0) {
            return Err("lacks kernel_shape".into());
        }
        let ceil = call.int("ceil_mode", 0)? != 0;
        let windows = Windows::of(call, kernel, [rows, columns], ceil)?;
        if windows.dilation != [1, 1] {
            return Err(format!("has dilations {:?}, but [1, 1] is supported", windows.dilation));
        }
        Ok((x, windows))
    }

    pub fn max_pool(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        // It says how indices count, which nobody takes.
        call.ignore(&["storage_order"]);
        let (x, windows) = self.windows(call, inputs)?;
        let dims = vec![x.dims[0], windows.output[0], windows.output[1]];
        if let Some(pool) = windows.pooled() {
            return self.apply(&[&x], dims, Order::Image, move |_, x| x[0].max_pool(pool));
        }
        let x = self.padded(&x, &windows.padding(true), LOWEST)?;
        let pool = windows.pool([0, 0]);
        self.apply(&[&x], dims, Order::Image, move |_, x| x[0].max_pool(pool))
    }

    pub fn average_pool(&mut self, call: &Call<'_>, inputs: &Inputs<'_>) -> Result<Activation, Why> {
        let (x, windows) = self.windows(call, inputs)?;
        let counts = call.int("count_include_pad", 0)? != 0;
        let dims = vec![x.dims[0], windows.output[0], windows.output[1]];
        let unpadded = windows.around == [[0; 2]; 2] && windows.beyond == [0, 0];
        if let Some(pool) = windows.pooled().filter(|_| counts || unpadded) {
            return self.apply(&[&x], dims, Order::Image, move |_, x| x[0].avg_pool(pool));
        }
        // The average of x and zeros, over the average of ones where an element counts and zeros elsewhere.
        let [_, rows, columns] = x.image()?;
        let x = self.padded(&x, &windows.padding(true), 0.0)?;
        let [_, all_rows, all_columns] = x.image()?;
        let [_, [above, below], [left, right]] = windows.padding(false);
        let (start, count) = match counts {
            true => ([0, 0], [rows + above + below, columns + left + right]),
            false => ([above, left], [rows, columns]),
        };
        let pool = windows.pool([0, 0]);
        self.apply(&[&x], dims, Order::Image, move |_, x| {
            let ones = x[0].tape().fill([1, count[0], count[1], 1], 1.0);
            let ones = ones.pad(&[0, start[0], start[1], 0], [1, all_rows, all_columns, 1]);
            x[0].avg_pool(pool) / ones.avg_pool(pool)
        })
    }
}
