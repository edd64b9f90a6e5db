//! What of Python's pickle a state dict needs, and nothing else: a reader of data that runs nothing.
//!
//! A pickle is a program for a small stack machine, two of whose instructions fetch any function there is in Python and
//! call it; so unpickling a stranger's file hands them the machine. Here an instruction that no state dict needs, and a
//! function that is not one of the few in [`global`], is an error that names it. Those few are not called either: what
//! they would make (a dict, a tensor's description) is written down as a [`Value`].
//!
//! Values lie in a list and refer to each other by index, so that nothing recurses, however deep they are nested or in
//! whatever circles. Memory is bounded: a value or a copied element takes from a budget ([`MOST_VALUES`]), texts are
//! no longer than the bytes that hold them, marks are no deeper than [`MOST_MARKS`].
//!
//! Instructions: Lib/pickletools.py of CPython. Protocols 2 to 5; `torch.save` writes 2.

use super::DType;
use std::collections::HashMap;

/// Most values, list elements and dict entries; a checkpoint with an optimiser's state has some ten thousand.
const MOST_VALUES: usize = 1 << 20;
/// Deepest nesting of containers under construction.
const MOST_MARKS: usize = 1 << 10;
/// Longest name of a module or function.
const MOST_NAME: usize = 256;
/// Most axes of a tensor.
const MOST_AXES: usize = 8;
/// Longest key of a storage; torch.save counts them.
const MOST_KEY: usize = 32;

/// A value, as an index into [`Pickle::values`].
pub(super) type Id = u32;

/// What a pickle can hold.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// A tuple, list or set.
    List(Vec<Id>),
    /// A dict, entries in the order they came.
    Dict(Vec<(Id, Id)>),
    /// A function or class that may stand here.
    Global(Global),
    /// Numbers kept outside of the pickle.
    Storage(Box<Storage>),
    /// A view of a storage.
    Tensor(Box<Tensor>),
    /// Anything that weights do not need: None, a float, bytes, an object of a class in the list.
    Other,
}

/// The functions and classes that may be named; see [`global`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    /// `collections.OrderedDict` and `defaultdict`.
    Dict,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`: (storage, offset, size, stride, ...).
    Tensor,
    /// `torch._utils._rebuild_tensor_v3`: the same, and a type as the seventh.
    TypedTensor,
    /// `torch._utils._rebuild_parameter`: the tensor that is its first argument.
    Parameter,
    /// A class of storages, or a type.
    Typed(DType),
    /// `torch.Size`: the list that is its argument.
    Size,
    /// What gives something that weights do not need.
    Other,
}

/// Numbers kept outside of the pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    /// Their type.
    pub(super) dtype: DType,
    /// What they go by.
    pub(super) key: String,
    /// How many there are.
    pub(super) count: u64,
}

/// A view of a storage; counts in elements.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    /// The storage.
    pub(super) storage: Storage,
    /// Type of its elements.
    pub(super) dtype: DType,
    /// First element.
    pub(super) offset: u64,
    /// Extents.
    pub(super) dims: Vec<usize>,
    /// From one index of an axis to the next.
    pub(super) strides: Vec<u64>,
}

/// A pickle that was read.
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
    /// Bytes it took.
    pub(super) length: usize,
}

impl Pickle {
    /// The value that it is.
    pub(super) fn root(&self) -> &Value {
        self.get(self.root)
    }

    /// The value at an index.
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    /// The storages that it names, once each time it does.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage.as_ref()),
            _ => None,
        })
    }

    /// Texts that are keys in a dict, with what they lead to; the last of equal keys comes last.
    pub(super) fn entries<'a>(&'a self, dict: &'a [(Id, Id)]) -> impl Iterator<Item = (&'a str, &'a Value)> {
        dict.iter().filter_map(|&(key, value)| match self.get(key) {
            Value::Text(key) => Some((key.as_str(), self.get(value))),
            _ => None,
        })
    }
}

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

/// Reads the pickle that `input` begins with; what comes after it is left alone.
///
/// # Errors
/// What is wrong and at which byte: an instruction or a function that is not taken, an end in the middle, operands that
/// do not fit, more than the limits of this module.
pub(super) fn read(input: &[u8]) -> Result<Pickle, String> {
    let mut machine = Machine {
        input,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        spent: 0,
    };
    loop {
        let start = machine.at;
        let opcode = machine.byte().map_err(|_| {
            format!("its pickle ends at byte {start} without an end: it is cut short or damaged")
        })?;
        match machine.step(opcode) {
            Ok(None) => {}
            Ok(Some(root)) => {
                return Ok(Pickle { values: machine.values, root, length: machine.at });
            }
            Err(why) => return Err(format!("at byte {start} of its pickle, {}: {why}", name_of(opcode))),
        }
    }
}

/// The stack machine.
struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack where containers under construction begin.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Of the budget of values.
    spent: usize,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// One instruction; the root where it was the last.
    fn step(&mut self, opcode: u8) -> Step<Option<Id>> {
        match opcode {
            // PROTO, FRAME
            0x80 => match self.byte()? {
                2..=5 => {}
                other => return Err(format!("protocol {other}, but 2 to 5 are taken")),
            },
            0x95 => {
                self.bytes(8)?;
            }
            // STOP
            b'.' => return self.pop().map(Some),
            // MARK
            b'(' => {
                if self.marks.len() == MOST_MARKS {
                    return Err(format!("nested deeper than {MOST_MARKS}"));
                }
                self.marks.push(self.stack.len());
            }
            // NONE, BINFLOAT
            b'N' => self.push(Value::Other)?,
            b'G' => {
                self.bytes(8)?;
                self.push(Value::Other)?;
            }
            // NEWTRUE, NEWFALSE, which are numbers in Python too; BININT, BININT1, BININT2, LONG1
            0x88 | 0x89 => self.push(Value::Int((opcode == 0x88).into()))?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            0x8a => {
                let length = self.byte()? as usize;
                let bytes = self.bytes(length)?;
                self.push(long(bytes))?;
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8
            b'X' | 0x8c | 0x8d => {
                let bytes = self.counted(opcode)?;
                let text = std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8".to_string())?;
                self.push(Value::Text(text.to_string()))?;
            }
            // BINSTRING, SHORT_BINSTRING: Python 2's texts
            b'T' | b'U' => {
                let bytes = self.counted(opcode)?;
                let text = bytes.iter().map(|&byte| char::from(byte)).collect();
                self.push(Value::Text(text))?;
            }
            // BINBYTES, SHORT_BINBYTES, BINBYTES8
            b'B' | b'C' | 0x8e => {
                self.counted(opcode)?;
                self.push(Value::Other)?;
            }
            // EMPTY_TUPLE, EMPTY_LIST, EMPTY_SET, EMPTY_DICT
            b')' | b']' | 0x8f => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            // TUPLE, FROZENSET, TUPLE1, TUPLE2, TUPLE3
            b't' | 0x91 => {
                let items = self.marked()?;
                self.push(Value::List(items))?;
            }
            0x85..=0x87 => {
                let items = self.take(usize::from(opcode - 0x84))?;
                self.push(Value::List(items))?;
            }
            // APPEND, APPENDS, ADDITEMS
            b'a' => {
                let items = self.take(1)?;
                self.extend(&items)?;
            }
            b'e' | 0x90 => {
                let items = self.marked()?;
                self.extend(&items)?;
            }
            // SETITEM, SETITEMS
            b's' => {
                let items = self.take(2)?;
                self.set(&items)?;
            }
            b'u' => {
                let items = self.marked()?;
                self.set(&items)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' => {
                let key = self.byte()?.into();
                self.remember(key)?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            // BINGET, LONG_BINGET
            b'h' => {
                let key = self.byte()?.into();
                self.recall(key)?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.name(&module, &name)?;
            }
            0x93 => {
                let [module, name] = self.two()?;
                match (self.get(module), self.get(name)) {
                    (Value::Text(module), Value::Text(name)) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.name(&module, &name)?;
                    }
                    _ => return Err("names that are no texts".into()),
                }
            }
            // REDUCE, NEWOBJ, BUILD
            b'R' | 0x81 => {
                let [function, arguments] = self.two()?;
                let made = self.made(function, arguments)?;
                self.push(made)?;
            }
            // What is set on an object (the metadata of a state dict, the fields of a Namespace) is no weight.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(Box::new(storage)))?;
            }
            _ => {
                return Err(
                    "an instruction that no state dict needs is not taken, and nothing was run".into()
                );
            }
        }
        Ok(None)
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.bytes(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let bytes = self.bytes(N)?;
        Ok(std::array::from_fn(|at| bytes[at]))
    }

    fn bytes(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = &self.input[self.at..];
        let bytes = rest.get(..count).ok_or_else(|| {
            format!(
                "{count} bytes are said to follow, but {} are left: it is cut short or damaged",
                rest.len()
            )
        })?;
        self.at += count;
        Ok(bytes)
    }

    /// Bytes behind their count, which these instructions hold in one, four or eight bytes.
    fn counted(&mut self, opcode: u8) -> Step<&'a [u8]> {
        let count = match opcode {
            b'U' | b'C' | 0x8c => self.byte()?.into(),
            0x8d | 0x8e => u64::from_le_bytes(self.array()?),
            _ => u32::from_le_bytes(self.array()?).into(),
        };
        self.bytes(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.input[self.at..];
        let end = rest.iter().take(MOST_NAME).position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| format!("a name without an end, or of more than {MOST_NAME} bytes"))?;
        self.at += end + 1;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    /// Takes so many from the budget.
    fn spend(&mut self, count: usize) -> Step<()> {
        self.spent = self.spent.saturating_add(count);
        if self.spent > MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values: no state dict has that many"));
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> Step<()> {
        self.spend(1)?;
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
        Ok(())
    }

    /// The lowest height the stack may fall to: where the innermost container under construction begins.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn take(&mut self, count: usize) -> Step<Vec<Id>> {
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor());
        Ok(self.stack.split_off(start.ok_or("the stack holds too little")?))
    }

    fn pop(&mut self) -> Step<Id> {
        Ok(self.take(1)?[0])
    }

    fn two(&mut self) -> Step<[Id; 2]> {
        let both = self.take(2)?;
        Ok([both[0], both[1]])
    }

    fn top(&self) -> Step<Id> {
        let top = self.stack.last().filter(|_| self.stack.len() > self.floor());
        top.copied().ok_or_else(|| "the stack holds too little".into())
    }

    /// What was pushed since the last mark.
    fn marked(&mut self) -> Step<Vec<Id>> {
        let start = self.marks.pop().ok_or("no container was begun")?;
        Ok(self.stack.split_off(start))
    }

    fn remember(&mut self, key: u32) -> Step<()> {
        let top = self.top()?;
        // An entry is larger than the instruction that makes it.
        self.spend(1)?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Step<()> {
        let id = *self.memo.get(&key).ok_or_else(|| format!("nothing was kept as {key}"))?;
        self.spend(1)?;
        self.stack.push(id);
        Ok(())
    }

    fn extend(&mut self, items: &[Id]) -> Step<()> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend_from_slice(items),
            // A list's subclass, or an object that is no weight.
            Value::Other => {}
            _ => return Err("items for what is no list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Step<()> {
        if items.len() % 2 == 1 {
            return Err("a key without a value".into());
        }
        let dict = self.top()?;
        match &mut self.values[dict as usize] {
            Value::Dict(dict) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Value::Other => {}
            _ => return Err("entries for what is no dict".into()),
        }
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Step<()> {
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
    fn made(&mut self, function: Id, arguments: Id) -> Step<Value> {
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
    fn storage(&self, id: Id) -> Step<Storage> {
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

/// A whole number in two's complement of any length; one beyond 64 bits is no number that weights need.
fn long(bytes: &[u8]) -> Value {
    let Some(&last) = bytes.last() else { return Value::Int(0) };
    if bytes.len() > 8 {
        return Value::Other;
    }
    let mut whole = [if last & 0x80 == 0 { 0 } else { 0xff }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(whole))
}

/// A text of a file as it is shown in an error: its first characters, nothing that a terminal would obey.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let mut shown: String =
        text.chars().take(MOST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push_str("...");
    }
    shown
}

/// What an instruction is called, as in Lib/pickle.py.
fn name_of(opcode: u8) -> String {
    let name = match opcode {
        b'(' => "MARK",
        b'.' => "STOP",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'J' => "BININT",
        b'K' => "BININT1",
        b'L' => "LONG",
        b'M' => "BININT2",
        b'N' => "NONE",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        b'R' => "REDUCE",
        b'S' => "STRING",
        b'T' => "BINSTRING",
        b'U' => "SHORT_BINSTRING",
        b'V' => "UNICODE",
        b'X' => "BINUNICODE",
        b'a' => "APPEND",
        b'b' => "BUILD",
        b'c' => "GLOBAL",
        b'd' => "DICT",
        b'}' => "EMPTY_DICT",
        b'e' => "APPENDS",
        b'g' => "GET",
        b'h' => "BINGET",
        b'i' => "INST",
        b'j' => "LONG_BINGET",
        b'l' => "LIST",
        b']' => "EMPTY_LIST",
        b'o' => "OBJ",
        b'p' => "PUT",
        b'q' => "BINPUT",
        b'r' => "LONG_BINPUT",
        b's' => "SETITEM",
        b't' => "TUPLE",
        b')' => "EMPTY_TUPLE",
        b'u' => "SETITEMS",
        b'G' => "BINFLOAT",
        b'B' => "BINBYTES",
        b'C' => "SHORT_BINBYTES",
        0x80 => "PROTO",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x85 => "TUPLE1",
        0x86 => "TUPLE2",
        0x87 => "TUPLE3",
        0x88 => "NEWTRUE",
        0x89 => "NEWFALSE",
        0x8a => "LONG1",
        0x8b => "LONG4",
        0x8c => "SHORT_BINUNICODE",
        0x8d => "BINUNICODE8",
        0x8e => "BINBYTES8",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x93 => "STACK_GLOBAL",
        0x94 => "MEMOIZE",
        0x95 => "FRAME",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        other => return format!("0x{other:02x}"),
    };
    name.to_string()
}
