//! Kernel settings of one network namespace: changed, remembered on disk, restored.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::Error;

const ROOT: &str = "/proc/sys/net";

/// The settings changed, with the values they had before, in the order of their first change.
#[derive(Debug)]
pub(crate) struct Settings {
    file: PathBuf,
    /// Path below `/proc/sys/net`, value before, value we set.
    changed: Vec<(String, String, String)>,
}

impl Settings {
    /// Reads what an earlier run changed.
    pub fn load(file: PathBuf) -> Result<Settings, Error> {
        let text = read_or_empty(&file)?;
        let parse = |line: &str| {
            let mut words = line.split('\t').map(str::to_owned);
            Some((words.next()?, words.next()?, words.next()?))
        };
        let mut changed = Vec::new();
        for (n, line) in text.lines().enumerate() {
            changed.push(parse(line).ok_or_else(|| Error::State { path: file.clone(), line: n + 1 })?);
        }
        Ok(Settings { file, changed })
    }

    /// Sets `name` (below `/proc/sys/net`) in the calling thread's namespace, unless it has that value already.
    /// The old value is on disk before the new one is in force. A setting this kernel lacks gives `false`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, Error> {
        self.set_noting(name, value, &[])
    }

    /// The same; `also` are settings that the kernel changes with it and that must be restored as well.
    pub fn set_noting(&mut self, name: &str, value: &str, also: &[&str]) -> Result<bool, Error> {
        let Some(old) = read(name)? else { return Ok(false) };
        if old == value {
            return Ok(true);
        }
        let mut side_effects = Vec::new();
        for name in also {
            side_effects.extend(read(name)?.map(|v| (*name, v)));
        }
        for (name, old, new) in
            side_effects.iter().map(|(n, v)| (*n, v.as_str(), "*")).chain([(name, old.as_str(), value)])
        {
            if !self.changed.iter().any(|(n, ..)| n == name) {
                self.changed.push((name.to_owned(), old.to_owned(), new.to_owned()));
            }
        }
        self.save()?;
        write(name, value)?;
        Ok(true)
    }

    /// Gives every setting its old value again, unless somebody else changed it since.
    pub fn restore(&mut self) -> Result<(), Error> {
        for (name, old, new) in self.changed.iter().rev() {
            match read(name)? {
                Some(now) if now != *old && (*new == now || new == "*") => write(name, old)?,
                _ => {}
            }
        }
        self.changed.clear();
        remove_if_there(&self.file)
    }

    fn save(&self) -> Result<(), Error> {
        let text: String = self.changed.iter().map(|(n, o, v)| format!("{n}\t{o}\t{v}\n")).collect();
        replace_file(&self.file, &text)
    }
}

/// The value of a setting below `/proc/sys/net`; none when this kernel lacks it.
pub(crate) fn read(name: &str) -> Result<Option<String>, Error> {
    match fs::read_to_string(format!("{ROOT}/{name}")) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::system(format!("read setting net/{name}"), e)),
    }
}

/// Sets a setting below `/proc/sys/net` without remembering it.
pub(crate) fn write(name: &str, value: &str) -> Result<(), Error> {
    fs::write(format!("{ROOT}/{name}"), value)
        .map_err(|e| Error::system(format!("set net/{name} to {value}"), e))
}

/// A file's text, empty when it is missing.
pub(crate) fn read_or_empty(path: &Path) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::system(format!("read {}", path.display()), e)),
    }
}

/// Writes a file so that it has the old or the new text after any crash.
pub(crate) fn replace_file(path: &Path, text: &str) -> Result<(), Error> {
    let new = path.with_extension("new");
    let run = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&new, path)
    };
    run().map_err(|e| Error::system(format!("write {}", path.display()), e))
}

/// Removes a file; a missing one is no error.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::system(format!("remove {}", path.display()), e))
        }
        _ => Ok(()),
    }
}
