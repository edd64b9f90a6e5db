//! The tape: computations as data.
//!
//! A [`Tape`] is a Wengert list of [`Op`]s. [`Var`]s point into it; their methods record. [`Tape::grad`] appends the
//! vector-Jacobian products that reverse-mode differentiation asks for, as ordinary ops, so that a gradient can be
//! differentiated again. A tape knows no device and runs nothing: a plan compiles it.
//!
//! Effects are assignments: [`Tape::assign`] says which named tensor a value is written to when the plan runs. Every
//! read of a tensor sees what it held before the run.

mod augment;
mod op;
mod random;
mod var;
mod vjp;

pub use augment::{Augment, Choice};
pub use op::{Axes, Binary, Conv2d, Op, Pool, Reduction, Unary};
pub use random::{Distribution, Purpose};
pub use var::{Draw, Var};

use crate::error::{Error, Result};
use crate::shape::{DType, Shape};
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::rc::Rc;

/// One recorded op.
#[derive(Clone, Debug)]
pub struct Node {
    /// The op.
    pub op: Op,
    /// Nodes it takes, all earlier on the tape.
    pub args: Vec<usize>,
    /// Shape of its result.
    pub shape: Shape,
    /// Type of its result.
    pub dtype: DType,
    /// Where in the network it was recorded, as "layer1.0.conv1"; empty outside any scope.
    pub scope: Rc<str>,
}

/// A Wengert list.
#[derive(Default)]
pub struct Tape {
    nodes: RefCell<Vec<Node>>,
    assignments: RefCell<Vec<(String, usize)>>,
    error: RefCell<Option<Error>>,
    scope: RefCell<Rc<str>>,
    // Set while gradients are being appended, so that launch lists can tell them from the forward pass.
    backward: Cell<bool>,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Tape {
        Tape::default()
    }

    /// The named tensor of this shape and type. The same name gives the same variable.
    #[track_caller]
    pub fn source(&self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Var<'_> {
        let shape = shape.into();
        let known = self
            .nodes
            .borrow()
            .iter()
            .position(|n| matches!(&n.op, Op::Source { name: have } if have == name));
        if let Some(id) = known {
            let have = self.nodes.borrow()[id].clone();
            if have.shape != shape || have.dtype != dtype {
                let message = format!(
                    "`{name}` was {} {} before, now {dtype} {shape} is wanted",
                    have.dtype, have.shape
                );
                return self.fail("source", message, Location::caller());
            }
            return Var { tape: self, id };
        }
        let name = name.to_string();
        self.push(Op::Source { name }, Vec::new(), shape, dtype)
    }

    /// A tensor of this shape with the same float everywhere.
    pub fn fill(&self, shape: impl Into<Shape>, value: f64) -> Var<'_> {
        self.push(Op::Fill { value }, Vec::new(), shape.into(), DType::F32)
    }

    /// Writes `value` to the tensor `name` whenever the plan runs. Several assignments to one name keep the last.
    pub fn assign(&self, name: &str, value: Var<'_>) {
        let mut assignments = self.assignments.borrow_mut();
        assignments.retain(|(have, _)| have != name);
        assignments.push((name.to_string(), value.id));
    }

    /// Records what `body` does under `name` within the present scope, for launch lists and error messages.
    pub fn scope<R>(&self, name: &str, body: impl FnOnce() -> R) -> R {
        let outer = self.scope.borrow().clone();
        let inner: Rc<str> = if outer.is_empty() { name.into() } else { format!("{outer}.{name}").into() };
        self.scope.replace(inner);
        let result = body();
        self.scope.replace(outer);
        result
    }

    /// Gradients of the sum of `loss` by each of `wrt`, of their shapes, appended to this tape. Only what lies
    /// between them is recorded: asking for the input's gradient records no weight gradient. A variable that `loss`
    /// does not depend on gets zeros.
    #[track_caller]
    pub fn grad<'t>(&'t self, loss: Var<'t>, wrt: &[Var<'t>]) -> Vec<Var<'t>> {
        self.backward(loss, None, wrt)
    }

    /// Gradients of the sum of `y * weight` by each of `wrt`, as [`Tape::grad`], with `weight` (of the shape of `y`)
    /// taken for a constant: the vector-Jacobian product of what lies between `wrt` and `y`.
    #[track_caller]
    pub fn weighted_grad<'t>(&'t self, y: Var<'t>, weight: Var<'t>, wrt: &[Var<'t>]) -> Vec<Var<'t>> {
        if y.shape() != weight.shape() {
            let message = format!("{} by weights of {}", y.shape(), weight.shape());
            self.fail("grad", message, Location::caller());
            return wrt.to_vec();
        }
        self.backward(y, Some(weight), wrt)
    }

    fn backward<'t>(&'t self, y: Var<'t>, weight: Option<Var<'t>>, wrt: &[Var<'t>]) -> Vec<Var<'t>> {
        let outer = (self.scope.borrow().clone(), self.backward.replace(true));
        let gradients = vjp::grad(self, y, weight, wrt);
        self.scope.replace(outer.0);
        self.backward.set(outer.1);
        gradients
    }

    /// The nodes recorded so far.
    pub fn nodes(&self) -> Vec<Node> {
        self.nodes.borrow().clone()
    }

    /// The assignments: name and node.
    pub fn assignments(&self) -> Vec<(String, usize)> {
        self.assignments.borrow().clone()
    }

    /// The first error of recording, if any; it is what compiling the tape returns.
    ///
    /// # Errors
    /// [`Error::Shape`] with the place in the caller's code.
    pub fn check(&self) -> Result<()> {
        match self.error.borrow().as_ref() {
            None => Ok(()),
            Some(Error::Shape { op, message, location }) => {
                Err(Error::Shape { op, message: message.clone(), location })
            }
            Some(other) => Err(Error::Unsupported(other.to_string())),
        }
    }

    /// Notes the first error and gives a variable to go on with.
    pub(crate) fn fail(
        &self,
        op: &'static str,
        message: String,
        location: &'static Location<'static>,
    ) -> Var<'_> {
        let scope = self.scope.borrow();
        let message = if scope.is_empty() { message } else { format!("in {scope}: {message}") };
        self.error.borrow_mut().get_or_insert(Error::Shape { op, message, location });
        // All six axes, so that code that looks at extents of a failed variable finds them.
        self.push(Op::Fill { value: 0.0 }, Vec::new(), Shape::new(&[1; crate::shape::MAX_RANK]), DType::F32)
    }

    /// Appends a node, or finds the same one: ops are pure functions of their arguments (random numbers too).
    fn push(&self, op: Op, args: Vec<usize>, shape: Shape, dtype: DType) -> Var<'_> {
        let mut nodes = self.nodes.borrow_mut();
        let from = args.iter().max().map_or(0, |last| last + 1);
        let same = |n: &Node| n.args == args && n.op == op && n.shape == shape && n.dtype == dtype;
        let id = match nodes[from..].iter().position(same) {
            Some(offset) => from + offset,
            None => {
                let scope = self.scope.borrow();
                let scope = match self.backward.get() && !scope.ends_with("'") {
                    true => format!("{scope}'").into(),
                    false => scope.clone(),
                };
                nodes.push(Node { op, args, shape, dtype, scope });
                nodes.len() - 1
            }
        };
        Var { tape: self, id }
    }

    /// Records an op, inferring its shape; `wanted` where the arguments do not say it.
    #[track_caller]
    fn record<'t>(&'t self, op: Op, args: &[Var<'t>], wanted: Option<Shape>) -> Var<'t> {
        let location = Location::caller();
        if self.error.borrow().is_some() {
            return self.fail(op.name(), String::new(), location);
        }
        let types: Vec<_> = args.iter().map(|arg| (arg.shape(), arg.dtype())).collect();
        match op::infer(&op, &types, wanted) {
            Ok((shape, dtype)) => self.push(op, args.iter().map(|arg| arg.id).collect(), shape, dtype),
            Err(message) => self.fail(op.name(), message, location),
        }
    }
}
