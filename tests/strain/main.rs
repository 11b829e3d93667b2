//! What goat bears: attacks, and faults of everything that it stands on. Apart from the others, which would disturb it.

#[path = "../common/mod.rs"]
mod common;

mod abuse;
mod faults;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long members wait says something of goat only where no other test has the processors.
static PROCESSORS: RwLock<()> = RwLock::new(());

fn alone() -> RwLockWriteGuard<'static, ()> {
    PROCESSORS.write().unwrap_or_else(PoisonError::into_inner)
}

fn beside_others() -> RwLockReadGuard<'static, ()> {
    PROCESSORS.read().unwrap_or_else(PoisonError::into_inner)
}
