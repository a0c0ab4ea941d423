//! What crosses the wire, whatever carries it.

use serde_json::{Map, Value, json};

/// An HTTP request, its body whole. To a bot's webhook, `path` is the whole URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// `target` is a path with an optional query.
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method: method.into(),
            path: decode_percent(path, false),
            query: parse_query(query),
            ..Self::default()
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    pub fn json(mut self, value: &Value) -> Self {
        self.body = value.to_string().into_bytes();
        self.header("content-type", "application/json")
    }

    pub fn form(mut self, fields: &[(&str, &str)]) -> Self {
        let encoded: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", percent(name), percent(value))).collect();
        self.body = encoded.join("&").into_bytes();
        self.header("content-type", "application/x-www-form-urlencoded")
    }

    /// The first header of that name (in lower case).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    /// The token of `Authorization: SCHEME token`.
    pub fn bearer(&self, scheme: &str) -> Option<&str> {
        self.get("authorization")?.strip_prefix(scheme)?.strip_prefix(' ')
    }

    /// The body as fields and files, if its content type is one that has any. A malformed body gives an error.
    pub fn fields(&self) -> Result<Fields, String> {
        let mut fields = Fields::default();
        let content_type = self.get("content-type").unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" if !self.body.is_empty() => {
                match serde_json::from_slice(&self.body).map_err(|error| error.to_string())? {
                    Value::Object(map) => fields.values = map,
                    _ => return Err("the body is no JSON object".into()),
                }
            }
            "application/x-www-form-urlencoded" => {
                for (name, value) in parse_query(&String::from_utf8_lossy(&self.body)) {
                    fields.values.insert(name, Value::String(value));
                }
            }
            "multipart/form-data" => {
                for part in multipart(content_type, &self.body)? {
                    if let Some(file_name) = part.file_name {
                        fields.files.push(File {
                            field: part.name,
                            name: file_name,
                            content_type: part.content_type,
                            bytes: part.body,
                        });
                    } else {
                        let text = String::from_utf8(part.body).map_err(|error| error.to_string())?;
                        fields.values.insert(part.name, Value::String(text));
                    }
                }
            }
            _ => {}
        }
        Ok(fields)
    }

    /// For the log: the body as JSON where it is, else its fields, or its length.
    pub fn summary(&self) -> Value {
        let body = match self.fields() {
            Ok(fields) if !fields.values.is_empty() || !fields.files.is_empty() => {
                let mut values = fields.values;
                for file in fields.files {
                    values.insert(
                        file.field,
                        json!({"file": file.name, "type": file.content_type, "bytes": file.bytes.len()}),
                    );
                }
                Value::Object(values)
            }
            _ => body_summary(&self.body),
        };
        let query: Map<String, Value> =
            self.query.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({"method": self.method, "path": self.path, "query": query, "body": body})
    }
}

/// What a request carried.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    pub values: Map<String, Value>,
    pub files: Vec<File>,
}

/// An uploaded file.
#[derive(Clone, Debug)]
pub struct File {
    pub field: String,
    pub name: String,
    pub content_type: Option<String>,
    pub bytes: Vec<u8>,
}

/// An HTTP answer; of a stream, only its head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, value: &Value) -> Self {
        Self::bytes(status, "application/json", value.to_string().into_bytes())
    }

    pub fn bytes(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type".into(), content_type.into())], body }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.to_string()));
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }

    /// The body as JSON; `null` where it is none.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn summary(&self) -> Value {
        json!({"status": self.status, "body": body_summary(&self.body)})
    }
}

/// A WebSocket message, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn body_summary(body: &[u8]) -> Value {
    const MOST: usize = 64 * 1024;
    if body.is_empty() {
        Value::Null
    } else if body.len() > MOST {
        json!({"bytes": body.len()})
    } else {
        serde_json::from_slice(body)
            .ok()
            .or_else(|| std::str::from_utf8(body).ok().map(|text| json!(text)))
            .unwrap_or_else(|| json!({"bytes": body.len()}))
    }
}

pub fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

pub fn decode_percent(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 3;
                continue;
            }
            (b'+', _) if plus => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

pub fn parse_query(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_percent(name, true), decode_percent(value, true))
        })
        .collect()
}

struct Part {
    name: String,
    file_name: Option<String>,
    content_type: Option<String>,
    body: Vec<u8>,
}

/// RFC 7578, as far as HTTP clients make use of it.
fn multipart(content_type: &str, body: &[u8]) -> Result<Vec<Part>, String> {
    let boundary = parameter(content_type, "boundary").ok_or("multipart without a boundary")?;
    let delimiter = format!("--{boundary}").into_bytes();
    let mut parts = Vec::new();
    let mut at = find(body, &delimiter, 0).ok_or("the boundary does not occur")? + delimiter.len();
    loop {
        if body.get(at..at + 2) == Some(b"--") {
            return Ok(parts);
        }
        let head_end = find(body, b"\r\n\r\n", at).ok_or("a part without a head")?;
        let head = String::from_utf8_lossy(&body[at..head_end]).into_owned();
        let start = head_end + 4;
        let mut end_mark = b"\r\n".to_vec();
        end_mark.extend_from_slice(&delimiter);
        let end = find(body, &end_mark, start).ok_or("a part without an end")?;
        let header = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let disposition = header("content-disposition").ok_or("a part without a disposition")?;
        parts.push(Part {
            name: parameter(&disposition, "name").ok_or("a part without a name")?,
            file_name: parameter(&disposition, "filename*")
                .and_then(|name| Some(decode_percent(name.split("''").nth(1)?, false)))
                .or_else(|| parameter(&disposition, "filename")),
            content_type: header("content-type"),
            body: body[start..end].to_vec(),
        });
        at = end + end_mark.len();
    }
}

fn parameter(header: &str, name: &str) -> Option<String> {
    let mut rest = header;
    while let Some(at) = rest.find(';') {
        rest = rest[at + 1..].trim_start();
        let (key, value) = rest.split_once('=')?;
        let quoted = value.starts_with('"');
        let found = if quoted {
            value[1..].split('"').next().unwrap_or_default()
        } else {
            value.split(';').next().unwrap_or_default().trim()
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(found.to_owned());
        }
        rest = &value[if quoted { found.len() + 1 } else { 0 }..];
    }
    None
}

fn find(body: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = from;
    loop {
        at += body.get(at..)?.iter().position(|byte| *byte == first)?;
        if body[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multipart_body_gives_its_fields_and_files() {
        let body = "--x\r\ncontent-disposition: form-data; name=\"chat_id\"\r\n\r\n7\r\n--x\r\n\
            Content-Disposition:form-data;name=\"photo\";filename=\"a;b.png\"\r\nContent-Type: image/png\r\n\r\n\
            \r\n--\r\n--x--\r\n";
        let request = Request {
            headers: vec![("content-type".into(), "multipart/form-data; boundary=x".into())],
            body: body.into(),
            ..Request::default()
        };
        let fields = request.fields().unwrap();
        assert_eq!(fields.values.get("chat_id"), Some(&json!("7")));
        assert_eq!(fields.files[0].name, "a;b.png");
        assert_eq!(fields.files[0].content_type.as_deref(), Some("image/png"));
        assert_eq!(fields.files[0].bytes, b"\r\n--");
        let cut = Request { body: body.as_bytes()[..body.len() - 8].to_vec(), ..request };
        assert!(cut.fields().is_err());
    }

    #[test]
    fn a_query_is_decoded() {
        let request = Request::new("GET", "/a%20b?x=1+2&y=%C3%A9&z");
        assert_eq!(request.path, "/a b");
        assert_eq!(request.query("x"), Some("1 2"));
        assert_eq!(request.query("y"), Some("é"));
        assert_eq!(request.query("z"), Some(""));
    }
}
