//! What a state dict's functions and classes would make: written down, never called.

use super::{Global, Id, Machine, Step, Storage, Tensor, Value, shown};
use crate::weights::DType;

/// Most axes of a tensor.
const MOST_AXES: usize = 8;
/// Longest key of a storage; torch.save counts them.
const MOST_KEY: usize = 32;

/// The functions and classes that state dicts name. Whatever is not here is refused.
fn global(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict") => Global::Dict,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::TypedTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::Parameter,
        ("torch", "Size") => Global::Size,
        ("torch" | "torch.storage" | "torch.cuda", _) if dtype(name).is_some() => Global::Typed(dtype(name)?),
        // Beside the weights of a checkpoint: its arguments, scores as NumPy's numbers, where it was trained.
        ("torch", "device")
        | ("argparse", "Namespace")
        | ("_codecs", "encode")
        | ("numpy", "dtype" | "ndarray")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct")
        | (
            "builtins" | "__builtin__",
            "bool" | "int" | "long" | "float" | "str" | "list" | "dict" | "set" | "frozenset",
        ) => Global::Other,
        _ => return None,
    })
}

/// The type that a class of storages or a type of PyTorch stands for.
fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "FloatStorage" | "float32" => DType::F32,
        "DoubleStorage" | "float64" => DType::F64,
        "HalfStorage" | "float16" => DType::F16,
        "BFloat16Storage" | "bfloat16" => DType::BF16,
        "LongStorage" | "int64" => DType::Other("int64", 8),
        "IntStorage" | "int32" => DType::Other("int32", 4),
        "ShortStorage" | "int16" => DType::Other("int16", 2),
        "CharStorage" | "int8" => DType::Other("int8", 1),
        "ByteStorage" | "uint8" => DType::Other("uint8", 1),
        "BoolStorage" | "bool" => DType::Other("bool", 1),
        "UntypedStorage" => DType::Other("bytes", 1),
        "uint16" => DType::Other("uint16", 2),
        "uint32" => DType::Other("uint32", 4),
        "uint64" => DType::Other("uint64", 8),
        "ComplexFloatStorage" | "complex64" => DType::Other("complex64", 8),
        "ComplexDoubleStorage" | "complex128" => DType::Other("complex128", 16),
        _ => return None,
    })
}

impl Machine<'_> {
    pub(super) fn name(&mut self, module: &str, name: &str) -> Step<()> {
        let found = global(module, name).ok_or_else(|| {
            format!(
                "`{}.{}` is none of the few functions and classes that a state dict needs; nothing else is taken, and \
                 nothing was run",
                shown(module),
                shown(name)
            )
        })?;
        self.push(Value::Global(found))
    }

    /// What a function or class would make of its arguments.
    pub(super) fn made(&mut self, function: Id, arguments: Id) -> Step<Value> {
        let function = match self.get(function) {
            Value::Global(function) => *function,
            _ => return Err("a call of what is no function".into()),
        };
        let arguments = match self.get(arguments) {
            Value::List(arguments) => arguments.clone(),
            _ => return Err("arguments that are no tuple".into()),
        };
        self.spend(arguments.len())?;
        match function {
            Global::Other => Ok(Value::Other),
            Global::Typed(_) => Err("a class of storages is called".into()),
            Global::Size | Global::Parameter => {
                let first = *arguments.first().ok_or("no argument")?;
                match (function, self.get(first)) {
                    (Global::Size, Value::List(list)) => {
                        let list = list.clone();
                        self.spend(list.len())?;
                        Ok(Value::List(list))
                    }
                    (Global::Parameter, Value::Tensor(tensor)) => Ok(Value::Tensor(tensor.clone())),
                    _ => Err("an argument of another kind than it takes".into()),
                }
            }
            Global::Dict => self.dict(&arguments).map(Value::Dict),
            Global::Tensor | Global::TypedTensor => {
                let dtype = match (function, arguments.get(6).map(|&id| self.get(id))) {
                    (Global::Tensor, _) => None,
                    (_, Some(Value::Global(Global::Typed(dtype)))) => Some(*dtype),
                    _ => return Err("a tensor without a type".into()),
                };
                Ok(Value::Tensor(Box::new(self.tensor(&arguments, dtype)?)))
            }
        }
    }

    /// `OrderedDict()`, or of a list of pairs, as Python 2 writes it.
    fn dict(&mut self, arguments: &[Id]) -> Step<Vec<(Id, Id)>> {
        let Some(Value::List(pairs)) = arguments.first().map(|&id| self.get(id)) else {
            return Ok(Vec::new());
        };
        let pair = |&id: &Id| match self.get(id) {
            Value::List(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err("a dict of what are no pairs".to_string()),
        };
        let pairs: Vec<(Id, Id)> = pairs.iter().map(pair).collect::<Step<_>>()?;
        self.spend(pairs.len())?;
        Ok(pairs)
    }

    /// (storage, offset, size, stride, ...).
    fn tensor(&self, arguments: &[Id], dtype: Option<DType>) -> Step<Tensor> {
        let [storage, offset, size, stride] = *arguments.get(..4).ok_or("too few arguments")? else {
            return Err("too few arguments".into());
        };
        let Value::Storage(storage) = self.get(storage) else {
            return Err("a tensor of what is no storage".into());
        };
        let number = |id: Id| match self.get(id) {
            Value::Int(value) => u64::try_from(*value).map_err(|_| format!("a negative number, {value}")),
            _ => Err("a place or extent that is no whole number".into()),
        };
        let numbers = |id: Id| match self.get(id) {
            Value::List(list) if list.len() <= MOST_AXES => {
                list.iter().map(|&id| number(id)).collect::<Step<Vec<u64>>>()
            }
            Value::List(list) => Err(format!("{} axes, but at most {MOST_AXES} are taken", list.len())),
            _ => Err("extents that are no tuple".into()),
        };
        let (dims, strides) = (numbers(size)?, numbers(stride)?);
        if dims.len() != strides.len() {
            return Err(format!("{} extents, but {} strides", dims.len(), strides.len()));
        }
        let dims = dims.into_iter().map(|extent| usize::try_from(extent).unwrap_or(usize::MAX)).collect();
        let dtype = dtype.unwrap_or(storage.dtype);
        Ok(Tensor { storage: (**storage).clone(), dtype, offset: number(offset)?, dims, strides })
    }

    /// ("storage", class, key, device, count), and in the older form perhaps a view, which nobody writes any more.
    pub(super) fn storage(&self, id: Id) -> Step<Storage> {
        let refuse = || "numbers kept outside that are no storage of PyTorch".to_string();
        let Value::List(parts) = self.get(id) else { return Err(refuse()) };
        let parts: Vec<&Value> = parts.iter().take(7).map(|&id| self.get(id)).collect();
        let [
            Value::Text(kind),
            Value::Global(Global::Typed(dtype)),
            Value::Text(key),
            _,
            Value::Int(count),
            view @ ..,
        ] = &parts[..]
        else {
            return Err(refuse());
        };
        if kind != "storage" {
            return Err(refuse());
        }
        if !matches!(view, [] | [Value::Other]) {
            return Err("a storage that is a view of another: save it again with a newer PyTorch".into());
        }
        if key.is_empty() || key.len() > MOST_KEY || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("a storage called `{}`, which torch.save calls none", shown(key)));
        }
        let count = u64::try_from(*count).map_err(|_| format!("a storage of {count} numbers"))?;
        Ok(Storage { dtype: *dtype, key: key.clone(), count })
    }
}
