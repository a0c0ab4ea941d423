//! Validates configs against a schema: `cargo run --example validate -- schema.json < configs.jsonl`.
//!
//! Standard input holds one config a line, as JSON; standard output has one JSON array of issues for each.

use std::io::{BufRead, Write};

use openclaw_core::config::schema::Schema;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: validate <schema.json> < configs.jsonl")?;
    let schema = Schema::from_json(&std::fs::read_to_string(path)?)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let issues = schema.validate(&serde_json::from_str(&line?)?)?;
        let issues = issues.into_iter().map(|issue| {
            serde_json::json!({
                "path": issue.path.join("."), "message": issue.message, "allowedValues": issue.allowed_values,
            })
        });
        writeln!(out, "{}", serde_json::Value::Array(issues.collect()))?;
    }
    out.flush()?;
    Ok(())
}
