//! From a file to steps: which nodes matter, in which order, and what each becomes.
//!
//! The batch of the file, where it leaves it open, is a number that no extent of a network is: so the integers that
//! shapes are computed from stay plain integers, and an axis that is the batch is known by its extent.

use super::call::Call;
use super::constant::{Budget, Constant, Data, fold};
use super::proto::{Graph, Node, ValueInfo, decode, types};
use super::value::{Activation, MAX_ALL, Order, Value, fits, here};
use super::{OPSETS, Onnx, Run, Step, Why, ops};
use crate::nn::{Init, Layout, Mode, Net, Param, Role};
use crate::shape::{DType, Shape};
use crate::tape::{Tape, Var};
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Most nodes that the output depends on.
const MAX_NODES: usize = 1 << 14;

/// Largest extent of an image.
const MAX_IMAGE: usize = 1 << 20;

/// What stands for a batch that a file leaves open: a prime, and larger than any extent of an image.
const OPEN_BATCH: usize = 1_048_583;

/// A parameter of the network being built.
#[derive(Clone)]
pub(super) struct Weight(Arc<Param>);

impl Weight {
    /// It as a variable.
    pub fn var<'t>(&self, net: &Net<'t>) -> Var<'t> {
        let Param { name, shape, layout, role, init } = self.0.as_ref();
        net.param(name, *shape, *layout, *role, init.clone())
    }
}

/// Where a translation stands.
pub(super) struct Builder<'t> {
    /// A scratch recording for one image, in which mistakes of shapes come out at the node that makes them.
    net: Net<'t>,
    vars: Vec<Var<'t>>,
    steps: Vec<Step>,
    scope: String,
    params: HashMap<String, Arc<Param>>,
    /// Names of layers whose parameters are declared by `Net`, with what they begin from.
    layers: HashMap<String, [Arc<[f32]>; 4]>,
    /// What the file's batch is, or stands for it.
    pub batch: usize,
    /// Elements of all values so far, of one image; no more than [`MAX_ALL`] and one value.
    elements: usize,
    /// What constants may still take.
    pub budget: Budget,
    /// Slots that are products with weights: what is added to one is a bias.
    pub products: HashSet<usize>,
    /// Names of nodes that the file asks to do what they do in training.
    pub training: Vec<String>,
}

impl Builder<'_> {
    /// The node under way, as it is called.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// A step that makes a value of these extents and this order.
    pub fn apply(
        &mut self,
        inputs: &[&Activation],
        dims: Vec<usize>,
        order: Order,
        run: impl for<'t> Fn(&Net<'t>, &[Var<'t>]) -> Var<'t> + Send + Sync + 'static,
    ) -> Result<Activation, Why> {
        self.elements += fits(&dims)?;
        if self.elements > MAX_ALL {
            return Err(format!(
                "makes a value of {dims:?} an image, and with those before it {} elements: more than {MAX_ALL} are not \
                 supported",
                self.elements
            ));
        }
        let slots: Vec<usize> = inputs.iter().map(|a| a.slot).collect();
        let args: Vec<Var<'_>> = slots.iter().map(|&slot| self.vars[slot]).collect();
        let run: Run = Box::new(run);
        let var = run(&self.net, &args);
        self.net.tape().check().map_err(|e| e.to_string())?;
        let (have, want) = (var.shape(), here(&dims, order));
        if have.dims().split_first() != Some((&1, want.as_slice())) {
            return Err(format!("makes a value of {have}, but {want:?} an image is what its inputs ask for"));
        }
        self.vars.push(var);
        self.steps.push(Step { scope: self.scope.clone(), inputs: slots, run });
        Ok(Activation { slot: self.vars.len() - 1, dims, order })
    }

    /// The parameter `base.suffix` of this shape and layout, which begins from these values in PyTorch's layout; the
    /// same one again where it was made before, another name where that is taken.
    pub fn weight(
        &mut self,
        base: &str,
        (suffix, role): (&str, Role),
        shape: impl Into<Shape>,
        layout: Layout,
        values: &Arc<[f32]>,
    ) -> Result<Weight, Why> {
        finite(base, values)?;
        let init = Init::Given(values.clone());
        let mut param = Param { name: String::new(), shape: shape.into(), layout, role, init };
        if param.shape.len() != values.len() {
            return Err(format!("has `{base}` of {} elements, not {}", values.len(), param.shape));
        }
        if layout != Layout::Plain {
            let ours = param.from_torch(&param.torch_shape(), values).map_err(|e| e.to_string())?;
            param.init = Init::Given(ours.into());
        }
        let param = unique(base, |base| {
            param.name = format!("{base}.{suffix}");
            match self.params.get(&param.name) {
                Some(have) if **have == param => Some(have.clone()),
                Some(_) => None,
                None => Some(Arc::new(param.clone())),
            }
        });
        self.params.insert(param.name.clone(), param.clone());
        Ok(Weight(param))
    }

    /// A name for a batch norm that begins from these values: weight, bias, running mean, running variance.
    pub fn norm(&mut self, base: &str, values: &[Arc<[f32]>; 4]) -> Result<String, Why> {
        values.iter().try_for_each(|values| finite(base, values))?;
        let name = unique(base, |base| match self.layers.get(base) {
            Some(have) if have != values => None,
            _ => Some(base.to_string()),
        });
        self.layers.insert(name.clone(), values.clone());
        Ok(name)
    }
}

/// What `make` gives for the first of `base`, `base-2`, `base-3` and so on that it takes.
fn unique<T>(base: &str, mut make: impl FnMut(&str) -> Option<T>) -> T {
    let mut count = 1;
    loop {
        let name = if count == 1 { base.to_string() } else { format!("{base}-{count}") };
        if let Some(made) = make(&name) {
            return made;
        }
        count += 1;
    }
}

/// That weights are numbers.
fn finite(name: &str, values: &[f32]) -> Result<(), Why> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(format!("has weights `{name}` of which element {at} is {}", values[at])),
    }
}

/// Reads a file.
pub(super) fn network(bytes: Bytes, image: Option<[usize; 3]>) -> Result<Onnx, Why> {
    let size = bytes.len();
    let model = decode(bytes)?;
    let opset = opset(&model.opset_import)?;
    let graph = model.graph.as_ref().ok_or("holds no graph: it is damaged, or something else")?;
    let initializers = initializers(graph)?;
    let (input, declared) = only_input(graph, &initializers)?;
    let output = match graph.output.as_slice() {
        [output] => output.name.as_str(),
        outputs => {
            let names: Vec<&str> = outputs.iter().take(4).map(|output| output.name.as_str()).collect();
            return Err(format!(
                "has {} outputs ({}), but a classifier has one: its logits",
                outputs.len(),
                names.join(", ")
            ));
        }
    };
    let taken = Taken::of(declared, image)?;
    let makers = makers(graph, input, &initializers)?;
    let needed = needed(graph, &makers, output)?;

    let tape = Tape::new();
    let [rows, columns, channels] = taken.input;
    let x = tape.source("images", [1, rows, columns, channels], DType::F32);
    let mut builder = Builder {
        net: Net::new(&tape, Mode::Eval),
        vars: vec![x],
        steps: Vec::new(),
        scope: String::new(),
        params: HashMap::new(),
        layers: HashMap::new(),
        batch: taken.batch,
        elements: 0,
        budget: Budget(size + (1 << 20)),
        products: HashSet::new(),
        training: Vec::new(),
    };
    let images = Activation { slot: 0, dims: vec![channels, rows, columns], order: Order::Image };
    let images = builder.reshaped(&images, taken.dims)?;
    let mut values: HashMap<&str, Value> = HashMap::from([(input, Value::Activation(images))]);
    let mut last = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        if !needed.contains(&at) {
            continue;
        }
        let what = format!("node {} ({})", label(node), node.op_type);
        let fault = |why: Why| format!("{what} {why}");
        let mut inputs = Vec::new();
        for name in &node.input {
            inputs.push(match values.get(name.as_str()) {
                _ if name.is_empty() => None,
                Some(value) => Some(value.clone()),
                None => match initializers.get(name.as_str()) {
                    Some(&at) => {
                        let constant = Constant::read(&graph.initializer[at]).map_err(fault)?;
                        let value = Value::Constant(Arc::new(constant));
                        values.insert(name, value.clone());
                        Some(value)
                    }
                    None => return Err(fault(lacking(name, at, &makers, graph))),
                },
            });
        }
        builder.scope = label(node).trim_matches('`').to_string();
        let value = translate(&mut builder, node, opset, &inputs).map_err(fault)?;
        if let Some(name) = node.output.first() {
            let before = node.input.first().and_then(|name| last.get(name.as_str()).copied());
            let shapes = ["Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout"];
            let op = node.op_type.as_str();
            last.insert(name.as_str(), before.filter(|_| shapes.contains(&op)).unwrap_or(op));
            values.insert(name, value);
        }
    }
    let logits = match values.get(output) {
        Some(Value::Activation(logits)) => logits.clone(),
        _ => return Err(format!("has an output `{output}` that does not depend on the images")),
    };
    // Old networks end in an average over pixels: [classes, 1, 1].
    let classes = logits.dims.first().copied().unwrap_or(0);
    if logits.dims.iter().skip(1).any(|&dim| dim != 1) || classes == 0 {
        return Err(format!(
            "gives {:?} an image in `{output}`, but a classifier gives one number a class",
            logits.dims
        ));
    }
    let logits = builder.reshaped(&logits, vec![classes])?;
    let logits = builder.plain(&logits)?;
    let last = last.get(output).copied().unwrap_or_default().to_string();
    let name = if graph.name.is_empty() { "onnx".into() } else { graph.name.clone() };
    let (steps, training) = (builder.steps, builder.training);
    Ok(Onnx { name, input: taken.input, classes, steps, output: logits.slot, last, training })
}

/// The value that a node makes.
fn translate(
    builder: &mut Builder<'_>,
    node: &Node,
    opset: i64,
    inputs: &[Option<Value>],
) -> Result<Value, Why> {
    if !["", "ai.onnx"].contains(&node.domain.as_str()) {
        return Err(format!("is of domain `{}`, but only ONNX's own operators are supported", node.domain));
    }
    let call = Call::new(node, opset);
    let constants: Option<Vec<Option<Arc<Constant>>>> = inputs
        .iter()
        .map(|input| match input {
            None => Some(None),
            Some(Value::Constant(constant)) => Some(Some(constant.clone())),
            Some(Value::Activation(_)) => None,
        })
        .collect();
    let folded = match &constants {
        Some(constants) => fold(&call, constants, &mut builder.budget)?,
        None => None,
    };
    let value = match folded {
        Some(mut constant) => {
            // What was worked out is called by what it was worked out from.
            if constant.name.is_empty() {
                constant.name = node.output.first().cloned().unwrap_or_default();
            }
            if matches!(constant.data, Data::Float(_)) && constant.name.is_empty() {
                constant.name = "constant".into();
            }
            Value::Constant(Arc::new(constant))
        }
        None => ops::translate(builder, &call, inputs)?,
    };
    call.done()?;
    Ok(value)
}

/// What a node is called in messages: its name, or else that of its output.
fn label(node: &Node) -> String {
    let name = if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name };
    let short: String = name.chars().take(100).collect();
    format!("`{short}`")
}

/// The version of ONNX's own operators.
fn opset(imports: &[super::proto::Opset]) -> Result<i64, Why> {
    let mut own = imports.iter().filter(|import| ["", "ai.onnx"].contains(&import.domain.as_str()));
    let (first, second) = (own.next(), own.next());
    let Some(import) = first.filter(|_| second.is_none()) else {
        return Err(
            "does not say the version of its operators (opset): it is damaged, or something else".into()
        );
    };
    if !OPSETS.contains(&import.version) {
        return Err(format!(
            "is of opset {}, but {} to {} are read: export it with one of those",
            import.version,
            OPSETS.start(),
            OPSETS.end()
        ));
    }
    Ok(import.version)
}

/// Constants by name.
fn initializers(graph: &Graph) -> Result<HashMap<&str, usize>, Why> {
    let mut known = HashMap::new();
    for (at, tensor) in graph.initializer.iter().enumerate() {
        if known.insert(tensor.name.as_str(), at).is_some() {
            return Err(format!("has two constants named `{}`", tensor.name));
        }
    }
    Ok(known)
}

/// The one input that is not a constant (early files list constants as inputs too).
fn only_input<'a>(
    graph: &'a Graph,
    initializers: &HashMap<&str, usize>,
) -> Result<(&'a str, &'a ValueInfo), Why> {
    let mut inputs = graph.input.iter().filter(|input| !initializers.contains_key(input.name.as_str()));
    match (inputs.next(), inputs.next()) {
        (Some(input), None) if !input.name.is_empty() => Ok((&input.name, input)),
        (Some(_), None) | (None, _) => Err("has no input: a classifier takes images".into()),
        (Some(one), Some(other)) => Err(format!(
            "has several inputs (`{}`, `{}`), but a classifier takes images alone",
            one.name, other.name
        )),
    }
}

/// Which node makes which value, and which of its outputs that is.
fn makers<'a>(
    graph: &'a Graph,
    input: &str,
    initializers: &HashMap<&str, usize>,
) -> Result<HashMap<&'a str, (usize, usize)>, Why> {
    let mut makers = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        for (which, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let taken = name == input || initializers.contains_key(name.as_str());
            if taken || makers.insert(name.as_str(), (at, which)).is_some() {
                return Err(format!("has two values named `{name}`, one of them of node {}", label(node)));
            }
        }
    }
    Ok(makers)
}

/// The nodes that the output depends on: others may be whatever they are.
fn needed(
    graph: &Graph,
    makers: &HashMap<&str, (usize, usize)>,
    output: &str,
) -> Result<HashSet<usize>, Why> {
    let mut needed = HashSet::new();
    let mut open = vec![output];
    while let Some(name) = open.pop() {
        if let Some(&(at, _)) = makers.get(name)
            && needed.insert(at)
        {
            open.extend(graph.node[at].input.iter().map(String::as_str));
        }
    }
    if needed.len() > MAX_NODES {
        return Err(format!("has {} nodes, but {MAX_NODES} at most are supported", needed.len()));
    }
    Ok(needed)
}

/// Why a node cannot have an input of this name.
fn lacking(name: &str, at: usize, makers: &HashMap<&str, (usize, usize)>, graph: &Graph) -> Why {
    match makers.get(name) {
        None => format!("takes `{name}`, which nothing makes"),
        Some(&(maker, which)) if maker < at => format!(
            "takes `{name}`, output {} of node {} ({}), but only its first one is supported",
            which + 1,
            label(&graph.node[maker]),
            graph.node[maker].op_type
        ),
        Some(&(maker, _)) => format!(
            "takes `{name}`, which a later node {} makes: the graph goes in a circle, or is not in order",
            label(&graph.node[maker])
        ),
    }
}

/// What the network takes.
struct Taken {
    /// Rows, columns and channels.
    input: [usize; 3],
    /// Extents of the graph's input, without the batch.
    dims: Vec<usize>,
    /// The batch, or what stands for it.
    batch: usize,
}

impl Taken {
    /// From what the file says of its input, and from the images that are there, if it is known which.
    fn of(declared: &ValueInfo, image: Option<[usize; 3]>) -> Result<Taken, Why> {
        let name = &declared.name;
        let tensor = declared.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
        let tensor = tensor.ok_or_else(|| format!("has an input `{name}` that is no tensor"))?;
        if tensor.element != types::FLOAT {
            return Err(format!(
                "has an input `{name}` of type {}, but floats of 32 bits (type 1) are supported",
                tensor.element
            ));
        }
        let extents = tensor.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
        let refuse = || {
            format!(
                "has an input `{name}` of {} axes, but [batch, channels, rows, columns] or [batch, features] is \
                 supported",
                extents.len()
            )
        };
        let (batch, rest) = extents.split_first().ok_or_else(refuse)?;
        let known = |extent: &super::proto::Extent| match extent.value {
            Some(value) if value > 0 => usize::try_from(value).ok().filter(|&value| value <= MAX_IMAGE),
            _ => None,
        };
        let wanted = image.map(|[rows, columns, channels]| [channels, rows, columns]);
        let open = |axis: usize| {
            format!(
                "does not fix extent {axis} of its input `{name}` (or it is past {MAX_IMAGE}): export it for images \
                 of one size"
            )
        };
        let (input, dims) = match rest {
            [features] => {
                let count = match (known(features), wanted) {
                    (Some(count), _) => count,
                    (None, Some([c, h, w])) => c * h * w,
                    (None, None) => return Err(open(1)),
                };
                let flattened = wanted.filter(|[c, h, w]| c * h * w == count);
                let [c, h, w] = flattened.unwrap_or([count, 1, 1]);
                ([h, w, c], vec![count])
            }
            [_, _, _] => {
                let mut dims = Vec::new();
                for (axis, extent) in rest.iter().enumerate() {
                    let given = known(extent).or(wanted.map(|wanted| wanted[axis]));
                    dims.push(given.ok_or_else(|| open(axis + 1))?);
                }
                ([dims[1], dims[2], dims[0]], dims)
            }
            _ => return Err(refuse()),
        };
        if let Some([c, h, w]) = wanted
            && input != [h, w, c]
        {
            let [rows, columns, channels] = input;
            return Err(format!(
                "takes images of {rows}x{columns} with {channels} channels, not of {h}x{w} with {c}"
            ));
        }
        fits(&dims)?;
        let batch = known(batch).unwrap_or(OPEN_BATCH);
        Ok(Taken { input, dims, batch })
    }
}
