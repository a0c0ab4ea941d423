//! Turns a validator's errors into the issues that stock OpenClaw would print: at the same paths.
//!
//! OpenClaw checks its core sections with zod and channels and plugins with typebox. Both report a missing
//! property at the property and an unknown one at its owner; they differ in what they say of alternatives.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{ErrorIterator, JsonType, ValidationError};
use serde_json::Value;

/// One issue, on its way from the validator.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// The keys from the root of the config.
    pub(super) path: Vec<String>,
    /// For people; never holds a value of the config, which may be secret.
    pub(super) message: String,
    /// The values that would do, if they can be listed.
    pub(super) allowed: Vec<Value>,
    /// Zod stops at these: no further rule looks at an object that holds one.
    pub(super) fatal: bool,
    unknown_keys: bool,
}

impl Finding {
    pub(super) fn new(path: Vec<String>, message: impl Into<String>) -> Self {
        Self { path, message: message.into(), allowed: Vec::new(), fatal: false, unknown_keys: false }
    }
}

/// The issues in a value of a core section, as zod reports them.
pub(super) fn core(errors: ErrorIterator<'_>, prefix: &[&str], schema: &Value) -> Vec<Finding> {
    let place = Place { prefix, schema };
    let mut findings = Vec::new();
    let mut bad_keys = Vec::new();
    for error in errors {
        if let Kind::PropertyNames { error: inner } = error.kind() {
            bad_keys.push(key_path(&error, inner, prefix));
        }
        zod(&error, &place, &mut findings);
    }
    // Zod does not look at the value of a key that it refuses.
    findings.retain(|finding| {
        !bad_keys.iter().any(|key| finding.path.len() > key.len() && finding.path.starts_with(key))
    });
    findings
}

/// The issues in a channel or in a plugin's config, as typebox reports them.
pub(super) fn plugin(errors: ErrorIterator<'_>, prefix: &[&str], _schema: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for error in errors {
        typebox(&error, prefix, &mut findings);
    }
    for finding in &mut findings {
        finding.message.insert_str(0, "invalid config: ");
    }
    findings
}

/// Where a part of the schema belongs.
struct Place<'a> {
    prefix: &'a [&'a str],
    schema: &'a Value,
}

impl<'a> Place<'a> {
    /// The property by which the branches of a `oneOf` are told, and its values in each.
    fn discriminator(&self, error: &ValidationError<'_>) -> Option<(&'a str, Vec<Vec<&'a Value>>)> {
        let branches = self.schema.pointer(error.schema_path().as_str())?.as_array()?;
        let values = |branch: &'a Value, tag: &str| -> Option<Vec<&'a Value>> {
            let property = branch.get("properties")?.get(tag)?;
            match property.get("const") {
                Some(value) => Some(vec![value]),
                None => Some(property.get("enum")?.as_array()?.iter().collect()),
            }
        };
        let first = branches.first()?.get("properties")?.as_object()?;
        first.keys().find_map(|tag| {
            let values = branches.iter().map(|branch| values(branch, tag)).collect::<Option<Vec<_>>>()?;
            Some((tag.as_str(), values))
        })
    }
}

fn zod(error: &ValidationError<'_>, place: &Place<'_>, out: &mut Vec<Finding>) {
    match error.kind() {
        Kind::AnyOf { context } => union(error, context, place, out),
        Kind::OneOfNotValid { context } => discriminated(error, context, place, out),
        _ => out.push(plain(error, place.prefix)),
    }
}

/// Zod takes the one branch that fails by its checks alone, if there is one, and else blames the union.
fn union(
    error: &ValidationError<'_>,
    context: &[Vec<ValidationError<'_>>],
    place: &Place<'_>,
    out: &mut Vec<Finding>,
) {
    let branches = context.iter().map(|errors| branch(errors, place)).collect::<Vec<_>>();
    if let ([first, second], [of_first, of_second]) = (context, branches.as_slice())
        && (wants_null(first) || wants_null(second))
    {
        // `X or null` is no union to zod: what is wrong with the X is said.
        out.extend(if wants_null(first) { of_second } else { of_first }.iter().cloned());
        return;
    }
    let mut survivors = branches.iter().filter(|branch| !branch.iter().any(|finding| finding.fatal));
    if let (Some(only), None) = (survivors.next(), survivors.next()) {
        out.extend(only.iter().cloned());
        return;
    }
    let mut finding = plain(error, place.prefix);
    if branches
        .iter()
        .all(|branch| branch.iter().any(|f| !f.allowed.is_empty()) && branch.iter().all(lists_or_is_silent))
    {
        finding.allowed = branches.into_iter().flatten().flat_map(|f| f.allowed).collect();
    } else if let Some(better) = binding(&branches, &finding.path) {
        finding = better;
    }
    out.push(finding);
}

fn lists_or_is_silent(finding: &Finding) -> bool {
    !finding.allowed.is_empty() || !finding.fatal || finding.unknown_keys
}

fn wants_null(errors: &[ValidationError<'_>]) -> bool {
    matches!(errors, [only] if matches!(only.kind(), Kind::Type { kind: TypeKind::Single(JsonType::Null) }))
}

/// Of a binding, OpenClaw names what is wrong with it as the kind of binding that it says it is.
fn binding(branches: &[Vec<Finding>], path: &[String]) -> Option<Finding> {
    let [section, _] = path else { return None };
    if section != "bindings" {
        return None;
    }
    let mut saw_other_kind = false;
    let mut matching: Option<&Finding> = None;
    for branch in branches {
        let is_type = |f: &&Finding| f.path.len() == 3 && f.path.last().is_some_and(|key| key == "type");
        if branch.iter().filter(is_type).any(|f| f.allowed.iter().any(|value| value == "route")) {
            saw_other_kind = true;
            continue;
        }
        let mut best: Option<&Finding> = None;
        for finding in branch {
            if best.is_none_or(|best| {
                finding.path.len() > best.path.len()
                    || (finding.path.len() == best.path.len() && finding.unknown_keys && !best.unknown_keys)
            }) {
                best = Some(finding);
            }
        }
        if best.is_some() && matching.is_some() {
            return None;
        }
        matching = matching.or(best);
    }
    matching.filter(|f| saw_other_kind && (f.path.len() > path.len() || f.unknown_keys)).cloned()
}

/// Zod looks at the branch that the discriminator names, or blames the discriminator.
fn discriminated(
    error: &ValidationError<'_>,
    context: &[Vec<ValidationError<'_>>],
    place: &Place<'_>,
    out: &mut Vec<Finding>,
) {
    let mut finding = plain(error, place.prefix);
    if let (Value::Object(instance), Some((tag, values))) =
        (error.instance().as_ref(), place.discriminator(error))
    {
        let chosen =
            instance.get(tag).and_then(|value| values.iter().position(|known| known.contains(&value)));
        if let Some(errors) = chosen.and_then(|index| context.get(index)) {
            out.extend(branch(errors, place));
            return;
        }
        finding.path.push(tag.to_owned());
        finding.allowed = values.into_iter().flatten().cloned().collect();
    }
    out.push(finding);
}

fn branch(errors: &[ValidationError<'_>], place: &Place<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for error in errors {
        zod(error, place, &mut findings);
    }
    findings
}

/// Typebox says what is wrong with every branch, and then that none fits.
fn typebox(error: &ValidationError<'_>, prefix: &[&str], out: &mut Vec<Finding>) {
    match error.kind() {
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            for error in context.iter().flatten() {
                typebox(error, prefix, out);
            }
            let mut finding = plain(error, prefix);
            finding.path = instance_path(error, prefix);
            out.push(finding);
        }
        Kind::PropertyNames { .. } => {
            out.push(plain(error, prefix));
            out.push(Finding::new(instance_path(error, prefix), "must have valid property names"));
        }
        _ => out.push(plain(error, prefix)),
    }
}

const MISSING: &str = "Invalid input: a value is required";

fn plain(error: &ValidationError<'_>, prefix: &[&str]) -> Finding {
    let mut path = instance_path(error, prefix);
    let mut allowed = Vec::new();
    let mut unknown_keys = false;
    let mut fatal = false;
    let message = match error.kind() {
        Kind::AdditionalProperties { unexpected } => {
            unknown_keys = true;
            let keys = unexpected.iter().map(|key| Value::from(key.as_str()).to_string()).collect::<Vec<_>>();
            format!("Unrecognized key{}: {}", if keys.len() == 1 { "" } else { "s" }, keys.join(", "))
        }
        Kind::Required { property } => {
            fatal = true;
            path.extend(property.as_str().map(str::to_owned));
            MISSING.to_owned()
        }
        Kind::PropertyNames { error: inner } => {
            fatal = true;
            path = key_path(error, inner, prefix);
            "Invalid key".to_owned()
        }
        Kind::Type { kind } => {
            fatal = true;
            if matches!(kind, TypeKind::Single(JsonType::Boolean)) {
                allowed = vec![Value::Bool(true), Value::Bool(false)];
            }
            format!("Invalid input: expected {}, received {}", expected(kind), type_name(error.instance()))
        }
        Kind::Enum { options } => {
            fatal = true;
            allowed = options.as_array().cloned().unwrap_or_default();
            format!("Invalid option: expected one of {}", listed(&allowed))
        }
        Kind::Constant { expected_value } => {
            fatal = true;
            allowed = vec![expected_value.as_ref().clone()];
            format!("Invalid input: expected {expected_value}")
        }
        Kind::Minimum { limit } => format!("Too small: expected a number of at least {limit}"),
        Kind::Maximum { limit } => format!("Too big: expected a number of at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("Too small: expected a number greater than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("Too big: expected a number less than {limit}"),
        Kind::MinLength { limit } => format!("Too small: expected a string of at least {limit} characters"),
        Kind::MaxLength { limit } => format!("Too big: expected a string of at most {limit} characters"),
        Kind::MinItems { limit } => format!("Too small: expected an array of at least {limit} items"),
        Kind::MaxItems { limit } => format!("Too big: expected an array of at most {limit} items"),
        Kind::MinProperties { limit } => format!("Too small: expected at least {limit} properties"),
        Kind::MaxProperties { limit } => format!("Too big: expected at most {limit} properties"),
        Kind::MultipleOf { multiple_of } => format!("Invalid number: must be a multiple of {multiple_of}"),
        Kind::Pattern { pattern } => format!("Invalid string: must match /{pattern}/"),
        Kind::Format { format } => format!("Invalid string: must be a {format}"),
        Kind::UniqueItems => "Invalid array: items must differ from each other".to_owned(),
        _ => {
            fatal = true;
            "Invalid input".to_owned()
        }
    };
    Finding { path, message, allowed, fatal, unknown_keys }
}

fn instance_path(error: &ValidationError<'_>, prefix: &[&str]) -> Vec<String> {
    let prefix = prefix.iter().map(|&key| key.to_owned());
    let own = error.instance_path().as_str().split('/').skip(1);
    prefix.chain(own.map(|key| key.replace("~1", "/").replace("~0", "~"))).collect()
}

fn key_path(error: &ValidationError<'_>, inner: &ValidationError<'_>, prefix: &[&str]) -> Vec<String> {
    let mut path = instance_path(error, prefix);
    path.extend(inner.instance().as_str().map(str::to_owned));
    path
}

fn expected(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => one.to_string(),
        TypeKind::Multiple(several) => {
            several.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or ")
        }
    }
}

fn listed(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect::<Vec<_>>().join("|")
}

/// What JavaScript calls the type of a value, near enough for people.
pub(super) const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
