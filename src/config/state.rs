//! What goat writes by itself, apart from the database, and where: `State`, which a service may need to name where the
//! configuration is read-only.

use std::path::PathBuf;

use nix::unistd::{AccessFlags, access};

use super::{Config, Driver};

impl Config {
    /// A file that goat writes by itself: it is called as the configuration, but for the end of its name.
    pub fn state_file(&self, extension: &str) -> PathBuf {
        self.state.join(self.file.file_name().unwrap_or_default()).with_extension(extension)
    }

    /// Which of them cannot be written, and what that means.
    pub fn unwritable(&self) -> Vec<String> {
        let (secret, journal) = (self.state_file("secret"), self.state_file("journal"));
        let folder = if journal.exists() { &journal } else { &self.state };
        let unsaved = (folder, "there is no journal, so a kill loses what is not yet in the database");
        let unsigned = (&self.state, "nobody can log in for signed calls of the API");
        // The secret is written once.
        let wanted = (self.api && !secret.exists()).then_some(unsigned);
        let wanted = wanted.into_iter().chain((self.db.driver == Driver::Mysql).then_some(unsaved));
        let message = |(folder, effect): (&PathBuf, &str)| {
            let e = access(folder, AccessFlags::W_OK | AccessFlags::X_OK).err()?.desc();
            Some(format!("{} cannot be written ({e}): {effect}. `State` may name another folder", folder.display()))
        };
        wanted.filter_map(message).collect()
    }
}
