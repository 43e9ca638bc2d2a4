//! A small writer of ONNX files: the part of the protobuf schema (onnx.proto3, IR version 8) that networks here need.

/// Fields of one protobuf message.
#[derive(Clone, Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(&mut self, field: u64, value: i64) {
        self.varint(field << 3);
        self.varint(value as u64);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

/// The element type f32 (TensorProto.DataType).
const FLOAT: i64 = 1;
/// The element type u8.
pub const UINT8: i64 = 2;
/// The element type i8.
const INT8: i64 = 3;
/// The element type i64.
const INT64: i64 = 7;
/// The element type f16.
pub const FLOAT16: i64 = 10;

/// A side of a tensor's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Known.
    Fixed(usize),
    /// Given at run time, under this name.
    Named(String),
}

/// An attribute of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A number.
    Int(i64),
    /// Several.
    Ints(Vec<i64>),
    /// A real number.
    Float(f32),
    /// A text.
    Text(String),
}

/// A graph that is being written, node by node in the order of computation.
#[derive(Clone, Debug, Default)]
pub struct OnnxGraph {
    graph: Message,
    names: usize,
    metadata: Vec<(String, String)>,
}

impl OnnxGraph {
    /// Casts a tensor to 32-bit floats.
    pub fn to_float(&mut self, tensor: &str) -> String {
        self.node("Cast", &[tensor], &[("to", Attribute::Int(FLOAT))])
    }

    /// Casts a tensor to 16-bit floats.
    pub fn to_half(&mut self, tensor: &str) -> String {
        self.node("Cast", &[tensor], &[("to", Attribute::Int(FLOAT16))])
    }

    /// Declares an input of 32-bit floats.
    pub fn input(&mut self, name: &str, shape: &[Dimension]) {
        self.input_of(name, shape, FLOAT);
    }

    /// Declares an input of another element type (TensorProto.DataType).
    pub fn input_of(&mut self, name: &str, shape: &[Dimension], kind: i64) {
        self.graph.bytes(11, &value_info(name, shape, kind).0);
    }

    /// Declares an output of 32-bit floats.
    pub fn output(&mut self, name: &str, shape: &[Dimension]) {
        self.graph.bytes(12, &value_info(name, shape, FLOAT).0);
    }

    /// Adds a node with one output and gives the output's name.
    pub fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        self.names += 1;
        let output = format!("{}_{}", operator.to_lowercase(), self.names);
        self.node_named(operator, inputs, &output, attributes);
        output
    }

    /// Adds a node whose output has a given name.
    pub fn node_named(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) {
        self.add(operator, inputs, &[output.to_owned()], attributes);
    }

    /// Adds a node with several outputs and gives their names.
    pub fn node_outputs(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: usize,
        attributes: &[(&str, Attribute)],
    ) -> Vec<String> {
        self.names += 1;
        let name = |output| format!("{}_{}_{output}", operator.to_lowercase(), self.names);
        let outputs: Vec<String> = (0..outputs).map(name).collect();
        self.add(operator, inputs, &outputs, attributes);
        outputs
    }

    fn add(&mut self, operator: &str, inputs: &[&str], outputs: &[String], attributes: &[(&str, Attribute)]) {
        let mut node = Message::default();
        inputs.iter().for_each(|input| node.bytes(1, input.as_bytes()));
        outputs.iter().for_each(|output| node.bytes(2, output.as_bytes()));
        node.bytes(3, outputs[0].as_bytes());
        node.bytes(4, operator.as_bytes());
        for (name, attribute) in attributes {
            let mut message = Message::default();
            message.bytes(1, name.as_bytes());
            // Field of the value, then the type (AttributeProto.AttributeType).
            match attribute {
                Attribute::Float(value) => {
                    message.float(2, *value);
                    message.int(20, 1);
                }
                Attribute::Int(value) => {
                    message.int(3, *value);
                    message.int(20, 2);
                }
                Attribute::Text(value) => {
                    message.bytes(4, value.as_bytes());
                    message.int(20, 3);
                }
                Attribute::Ints(values) => {
                    values.iter().for_each(|value| message.int(8, *value));
                    message.int(20, 7);
                }
            }
            node.bytes(5, &message.0);
        }
        self.graph.bytes(1, &node.0);
    }

    /// The bytes of the file, for operators of version `opset`.
    pub fn finish(mut self, name: &str, opset: i64) -> Vec<u8> {
        self.graph.bytes(2, name.as_bytes());
        let mut opsets = Message::default();
        opsets.bytes(1, b"");
        opsets.int(2, opset);
        let mut model = Message::default();
        model.int(1, 8);
        model.bytes(2, b"yolo-lat");
        model.bytes(3, env!("CARGO_PKG_VERSION").as_bytes());
        model.bytes(7, &self.graph.0);
        model.bytes(8, &opsets.0);
        for (key, value) in &self.metadata {
            let mut entry = Message::default();
            entry.bytes(1, key.as_bytes());
            entry.bytes(2, value.as_bytes());
            model.bytes(14, &entry.0);
        }
        model.0
    }

    /// Adds a constant of 64-bit integers and gives its name.
    pub fn integers(&mut self, values: &[i64]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(INT64, &[values.len()], &bytes)
    }

    /// Adds a single 64-bit integer (a tensor without dimensions) and gives its name.
    pub fn integer(&mut self, value: i64) -> String {
        self.constant(INT64, &[], &value.to_le_bytes())
    }

    /// Adds a constant of 16-bit floats, rounded from `values`, and gives its name.
    pub fn halves(&mut self, shape: &[usize], values: &[f32]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect();
        self.constant(FLOAT16, shape, &bytes)
    }

    /// Adds a value to the file's metadata.
    pub fn metadata(&mut self, key: &str, value: &str) {
        self.metadata.push((key.to_owned(), value.to_owned()));
    }

    /// Adds a constant of bytes and gives its name.
    pub fn bytes(&mut self, shape: &[usize], values: &[u8]) -> String {
        self.constant(UINT8, shape, values)
    }

    /// Adds a constant of signed bytes and gives its name.
    pub fn signed_bytes(&mut self, shape: &[usize], values: &[i8]) -> String {
        let bytes: Vec<u8> = values.iter().map(|&value| value as u8).collect();
        self.constant(INT8, shape, &bytes)
    }

    /// Adds a constant of 32-bit floats and gives its name.
    pub fn floats(&mut self, shape: &[usize], values: &[f32]) -> String {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(FLOAT, shape, &bytes)
    }

    /// Adds a constant of 32-bit floats that lie, little-endian, in `file` beside the ONNX file, and gives its name.
    pub fn floats_in_file(&mut self, shape: &[usize], file: &str) -> String {
        let mut location = Message::default();
        location.bytes(1, b"location");
        location.bytes(2, file.as_bytes());
        self.tensor(FLOAT, shape, |tensor| {
            tensor.bytes(13, &location.0);
            tensor.int(14, 1);
        })
    }

    fn constant(&mut self, kind: i64, shape: &[usize], bytes: &[u8]) -> String {
        self.tensor(kind, shape, |tensor| tensor.bytes(9, bytes))
    }

    fn tensor(&mut self, kind: i64, shape: &[usize], values: impl FnOnce(&mut Message)) -> String {
        self.names += 1;
        let name = format!("constant_{}", self.names);
        let mut tensor = Message::default();
        shape.iter().for_each(|&side| tensor.int(1, side as i64));
        tensor.int(2, kind);
        tensor.bytes(8, name.as_bytes());
        values(&mut tensor);
        self.graph.bytes(5, &tensor.0);
        name
    }
}

/// Number of weight values in an ONNX file: of all initializers of real numbers with at least one dimension. Single
/// numbers and integers are no weights; sides that nothing could hold give the largest count. `None` if the bytes are no ONNX file.
pub fn count_parameters(file: &[u8]) -> Option<usize> {
    let graph = Fields(file).find_map(|(field, value)| match value? {
        Value::Bytes(bytes) if field == 7 => Some(bytes),
        _ => None,
    })?;
    let mut count = 0;
    for (field, value) in Fields(graph) {
        if let (5, Value::Bytes(tensor)) = (field, value?) {
            let (mut kind, mut dimensions, mut values) = (0, 0, 1usize);
            for (field, value) in Fields(tensor) {
                match (field, value?) {
                    (1, Value::Varint(side)) => {
                        (dimensions, values) = (dimensions + 1, values.saturating_mul(side as usize))
                    }
                    // Some writers pack the sides into one field.
                    (1, Value::Bytes(mut sides)) => {
                        while !sides.is_empty() {
                            let side = varint(&mut sides)? as usize;
                            (dimensions, values) = (dimensions + 1, values.saturating_mul(side));
                        }
                    }
                    (2, Value::Varint(value)) => kind = value as i64,
                    _ => {}
                }
            }
            if (kind == FLOAT || kind == FLOAT16) && dimensions > 0 {
                count = usize::saturating_add(count, values);
            }
        }
    }
    Some(count)
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a protobuf message with their numbers; a field cut short is `None`, and the last.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Option<Value<'a>>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let key = varint(&mut self.0);
        let value = key.and_then(|key| match key & 7 {
            0 => varint(&mut self.0).map(Value::Varint),
            1 => self.0.split_off(..8).map(|_| Value::Fixed),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).ok()?;
                self.0.split_off(..length).map(Value::Bytes)
            }
            5 => self.0.split_off(..4).map(|_| Value::Fixed),
            _ => None,
        });
        if value.is_none() {
            self.0 = &[];
        }
        Some((key.unwrap_or(0) >> 3, value))
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn value_info(name: &str, shape: &[Dimension], kind: i64) -> Message {
    let mut dimensions = Message::default();
    for side in shape {
        let mut dimension = Message::default();
        match side {
            Dimension::Fixed(side) => dimension.int(1, *side as i64),
            Dimension::Named(name) => dimension.bytes(2, name.as_bytes()),
        }
        dimensions.bytes(1, &dimension.0);
    }
    let mut tensor = Message::default();
    tensor.int(1, kind);
    tensor.bytes(2, &dimensions.0);
    let mut value = Message::default();
    value.bytes(1, &tensor.0);
    let mut info = Message::default();
    info.bytes(1, name.as_bytes());
    info.bytes(2, &value.0);
    info
}
