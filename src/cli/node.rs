//! `goat node`: the goats on this database, as they tell each other through Redis.

use super::call::{Call, Done, now};
use super::output::show_all;
use crate::config::Config;
use crate::nodes::{Status, fingerprint};
use crate::store::Store;

/// By which those are known who share this goat's secret; nothing where it has none yet.
pub fn secret(config: &Config) -> Result<String, String> {
    let made = config.state_file("secret").exists();
    if made { fingerprint(config) } else { Ok(String::new()) }
}

pub fn nodes(config: &Config, store: &Store) -> Result<Vec<Status>, String> {
    let identity = store.identity().map_err(|e| e.to_string())?;
    #[cfg(feature = "redis")]
    return crate::nodes::link::list(config.redis.as_deref().unwrap_or_default(), identity).map_err(|e| e.to_string());
    #[cfg(not(feature = "redis"))]
    Err(format!("this goat, with {} and database {identity}, was built without redis", config.file.display()))
}

pub fn list(call: &Call) -> Done {
    let (config, store) = call.open()?;
    if config.redis.is_none() {
        return Err(format!("Redis is off in {}: there is this goat alone", config.file.display()).into());
    }
    let secret = secret(&config)?;
    let mut shown = Vec::new();
    for node in nodes(&config, &store).map_err(|e| format!("Redis: {e}"))? {
        let mut one = serde_json::to_value(&node)?;
        // By the clocks of both; a node says something each second.
        one["silent"] = now().saturating_sub(node.time).into();
        one["sameSecret"] = (node.secret == secret).into();
        shown.push(one);
    }
    show_all(&shown, "name version silent announcesPerSecond unsavedRows database sameSecret", call.json())
}
