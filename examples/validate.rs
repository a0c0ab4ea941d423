//! Validates configs against OpenClaw's schema, which is either in a file or that of an installed OpenClaw:
//!
//! ```text
//! validate <schema.json>                          < configs.jsonl
//! validate <package> <state-dir> <node> <cache>   < configs.jsonl
//! ```
//!
//! Standard input holds one config a line, as JSON; standard output has one JSON array of issues for each.

use std::io::{BufRead, Write};
use std::time::Duration;

use openclaw_core::config::schema::{Installed, Schema, SchemaCache};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let configs = std::io::stdin().lock().lines();
    let configs = configs.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<Result<Vec<Value>>>()?;
    let schema = match args.as_slice() {
        [file] => Schema::from_json(&std::fs::read_to_string(file)?)?,
        [package, state_dir, node, cache] => {
            let home = std::env::home_dir().unwrap_or_default();
            let installed = Installed { package: package.into(), state_dir: state_dir.into(), home };
            let cache = SchemaCache::open(cache);
            let config = configs.first().unwrap_or(&Value::Null);
            if let Some(schema) = cache.get(&installed.key(config)?) {
                eprintln!("cached");
                schema
            } else {
                eprintln!("generated");
                installed.refresh(&cache, node.as_ref(), config, &[], Duration::from_mins(1))?
            }
        }
        _ => return Err("usage: validate <schema.json> | <package> <state-dir> <node> <cache>".into()),
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for config in &configs {
        let issues = schema.validate(config)?.into_iter().map(|issue| {
            json!({ "path": issue.path.join("."), "message": issue.message, "allowedValues": issue.allowed_values })
        });
        writeln!(out, "{}", Value::Array(issues.collect()))?;
    }
    out.flush()?;
    Ok(())
}
