//! The messages of ONNX files that networks are made of, as onnx.proto numbers their fields (IR version 3 to 10).
//!
//! What is not declared here is skipped when a file is read: documentation, types of inner values, subgraphs. That
//! also ends recursion: no message here holds itself.

use super::Why;
use prost::Message;
use prost::bytes::Bytes;

/// Most submessages and strings of a file: a network of 16 000 nodes has about 200 000. Two bytes of a hostile file
/// make an empty message that takes 200 in memory, so they are counted before anything is decoded.
const MAX_FIELDS: usize = 1 << 18;

/// Types of elements, as `TensorProto.DataType` numbers them.
pub(super) mod types {
    pub const FLOAT: i32 = 1;
    pub const UINT8: i32 = 2;
    pub const INT8: i32 = 3;
    pub const UINT16: i32 = 4;
    pub const INT16: i32 = 5;
    pub const INT32: i32 = 6;
    pub const INT64: i32 = 7;
    pub const BOOL: i32 = 9;
    pub const FLOAT16: i32 = 10;
    pub const DOUBLE: i32 = 11;
    pub const UINT32: i32 = 12;
    pub const UINT64: i32 = 13;
    pub const BFLOAT16: i32 = 16;
}

/// Kinds of attributes, as `AttributeProto.AttributeType` numbers them.
pub(super) mod kinds {
    pub const FLOAT: i32 = 1;
    pub const INT: i32 = 2;
    pub const STRING: i32 = 3;
    pub const TENSOR: i32 = 4;
    pub const FLOATS: i32 = 6;
    pub const INTS: i32 = 7;
}

/// A file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<Opset>,
}

/// A version of a set of operators; the empty domain is ONNX's own.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Opset {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// Nodes in an order in which each takes what comes before it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

/// An operator applied to named values; an input that is left out has an empty name.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

/// A named constant of a node.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub s: Option<Bytes>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<Tensor>,
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

/// A tensor: its elements are in `raw_data`, little endian, or in the list for its type.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// 1 where the elements are in another file.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// Name and type of what enters or leaves a graph.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<TypeOf>,
}

/// The type of a value.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TypeOf {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
}

/// The type of a tensor.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub element: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Extents>,
}

/// The extents of a tensor.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Extents {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Extent>,
}

/// A number, or a name for one that is not fixed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Extent {
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub param: Option<String>,
}

/// Decodes a file.
///
/// # Errors
/// When it is no protobuf, ends too soon, or is of more messages than a network has.
pub(super) fn decode(bytes: Bytes) -> Result<Model, Why> {
    let damaged = |why: String| format!("is not a whole ONNX file ({why}): it is damaged, or something else");
    let mut left = MAX_FIELDS;
    count(&bytes, Kind::Model, &mut left).map_err(damaged)?;
    Model::decode(bytes).map_err(|e| damaged(e.to_string()))
}

/// Whether these are the first bytes of a model, as everyone writes one: the version of the format, a small number, and
/// then the producer, its version, a domain, a number of the model, a text about it, the graph or the operators.
pub(super) fn begins(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 1..=0x1f, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..])
}

/// The messages that hold repeated ones.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Info,
    Type,
    TensorType,
    Extents,
    Leaf,
}

impl Kind {
    /// What field `number` holds, if that is a message that is decoded.
    fn field(self, number: usize) -> Option<Kind> {
        match (self, number) {
            (Kind::Model, 7) => Some(Kind::Graph),
            (Kind::Model, 8) | (Kind::Graph, 5) | (Kind::Attribute, 5) | (Kind::Extents, 1) => {
                Some(Kind::Leaf)
            }
            (Kind::Graph, 1) => Some(Kind::Node),
            (Kind::Graph, 11 | 12) => Some(Kind::Info),
            (Kind::Node, 5) => Some(Kind::Attribute),
            (Kind::Info, 2) => Some(Kind::Type),
            (Kind::Type, 1) => Some(Kind::TensorType),
            (Kind::TensorType, 2) => Some(Kind::Extents),
            _ => None,
        }
    }
}

/// Takes what has a length within `bytes` off what is left, for every message that is going to be decoded. Eight deep
/// at most.
fn count(mut bytes: &[u8], kind: Kind, left: &mut usize) -> Result<(), String> {
    fn number(bytes: &mut &[u8]) -> Result<usize, String> {
        prost::decode_length_delimiter(bytes).map_err(|e| e.to_string())
    }
    while !bytes.is_empty() {
        let tag = number(&mut bytes)?;
        let skip = match tag & 7 {
            0 => {
                number(&mut bytes)?;
                0
            }
            1 => 8,
            2 => number(&mut bytes)?,
            5 => 4,
            other => return Err(format!("a field of wire type {other}, which ONNX has not")),
        };
        if skip > bytes.len() {
            return Err(format!("a field of {skip} bytes where {} are left", bytes.len()));
        }
        let (body, rest) = bytes.split_at(skip);
        bytes = rest;
        if tag & 7 == 2 {
            *left = left.checked_sub(1).ok_or_else(|| format!("more than {MAX_FIELDS} messages"))?;
            if let Some(inner) = kind.field(tag >> 3) {
                count(body, inner, left)?;
            }
        }
    }
    Ok(())
}
