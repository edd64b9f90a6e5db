//! What of Python's pickle a state dict needs, and nothing else: a reader of data that runs nothing.
//!
//! A pickle is a program for a small stack machine, two of whose instructions fetch any function there is in Python and
//! call it; so unpickling a stranger's file hands them the machine. Here an instruction that no state dict needs, and a
//! function that is not one of the few in objects.rs, is an error that names it. Those few are not called either: what
//! they would make (a dict, a tensor's description) is written down as a [`Value`].
//!
//! Values lie in a list and refer to each other by index, so that nothing recurses, however deep they are nested or in
//! whatever circles. Memory is bounded: a value or a copied element takes from a budget ([`MOST_VALUES`]), texts are
//! no longer than the bytes that hold them, marks are no deeper than [`MOST_MARKS`].
//!
//! Instructions: Lib/pickletools.py of CPython. Protocols 2 to 5; `torch.save` writes 2.

mod objects;
mod opcodes;

use super::DType;
use opcodes::name_of;
use std::collections::HashMap;

/// Most values, list elements and dict entries; a checkpoint with an optimiser's state has some ten thousand.
const MOST_VALUES: usize = 1 << 20;
/// Deepest nesting of containers under construction.
const MOST_MARKS: usize = 1 << 10;
/// Longest name of a module or function.
const MOST_NAME: usize = 256;

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
