//! Certificates and keys as files: keys that nobody else reads, and no file that is half written.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Error;

/// Of a certificate: everybody may read it.
pub(super) const PUBLIC: u32 = 0o644;
/// Of a key: its owner alone.
pub(super) const SECRET: u32 = 0o600;

/// What to do with a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Refuse,
    Replace,
}

/// Writes a whole file or none: beside its place, on disk, then renamed. The mode is set before the name exists.
pub(super) fn place(path: &Path, content: &str, mode: u32, existing: Existing) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.into(), source };
    let dir = folder_of(path);
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(&dir).map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    let placed = match existing {
        Existing::Refuse => file.persist_noclobber(path),
        Existing::Replace => file.persist(path),
    };
    placed.map_err(|refused| match refused.error.kind() {
        ErrorKind::AlreadyExists => Error::Exists { path: path.into() },
        _ => failed(refused.error),
    })?;
    File::open(&dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.into(),
        Some(_) | None => ".".into(),
    }
}

/// Makes a folder that only its owner enters; one that is there and empty becomes such a folder.
pub(super) fn private_folder(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: dir.into(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let mode = fs::metadata(dir).map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let empty = fs::read_dir(dir).map_err(failed)?.next().is_none();
    if empty {
        return fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed);
    }
    Err(Error::Open { path: dir.into(), mode, whom: "others than its owner", remedy: "700" })
}

/// Who else may read a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Readers {
    /// Nobody: with the CA's key one can be anybody.
    Owner,
    /// A group: daemons run as a user of their own and read a file of root's.
    Group,
}

/// The text of a file that must be secret.
pub(super) fn read_secret(path: &Path, readers: Readers) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    // Of the open file: what a path names may change in between.
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    let (forbidden, whom, remedy) = match readers {
        Readers::Owner => (0o077, "others than its owner", "600"),
        Readers::Group => (0o007, "everybody", "640"),
    };
    if mode & forbidden != 0 {
        return Err(Error::Open { path: path.into(), mode, whom, remedy });
    }
    std::io::read_to_string(file).map_err(failed)
}

/// All certificates of a PEM file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
    let nothing = || Error::NotPem { path: path.into(), what: "certificate" };
    let all: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|_| nothing())?;
    if all.is_empty() { Err(nothing()) } else { Ok(all) }
}

/// The private key of a PEM file.
pub(super) fn key(path: &Path, readers: Readers) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read_secret(path, readers)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| Error::NotPem { path: path.into(), what: "private key" })
}
