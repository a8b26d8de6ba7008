// SPDX-License-Identifier: GPL-2.0

//! Archives in the form from which the kernel fills its initial RAM file system (cpio, "newc").
//! Several of them may follow each other.

use std::{
    ffi::OsStr,
    fs,
    io::{self, BufWriter, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

use crate::cache;

const S_IFCHR: u32 = 0o020000;
const S_IFDIR: u32 = 0o040000;
const S_IFREG: u32 = 0o100000;
const S_IFLNK: u32 = 0o120000;

pub struct Archive<W: Write> {
    out: BufWriter<W>,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self {
            out: BufWriter::new(out),
            inode: 0,
        }
    }

    fn entry(&mut self, name: &Path, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        let name = name.as_os_str().as_bytes();
        let size = u32::try_from(data.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.inode += 1;
        // Inode, mode, uid, gid, links, mtime, size, device, special device, name's size, checksum.
        let (major, minor) = device;
        let name_size = name.len() as u32 + 1;
        let fields = [
            self.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0,
        ];
        write!(self.out, "070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name)?;
        // The header is 110 bytes; the name ends with at least one zero, the data with none.
        let padding = 4 - (110 + name.len()) % 4;
        self.out.write_all(&[0; 4][..padding])?;
        self.out.write_all(data)?;
        self.out.write_all(&[0; 4][..data.len().wrapping_neg() % 4])
    }

    pub fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        self.entry(Path::new(name), S_IFREG | mode, (0, 0), data)
    }

    pub fn dir(&mut self, name: &str) -> io::Result<()> {
        self.entry(Path::new(name), S_IFDIR | 0o755, (0, 0), &[])
    }

    pub fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(Path::new(name), S_IFLNK | 0o777, (0, 0), target.as_bytes())
    }

    pub fn char_device(&mut self, name: &str, mode: u32, device: (u32, u32)) -> io::Result<()> {
        self.entry(Path::new(name), S_IFCHR | mode, device, &[])
    }

    /// A file or a whole directory under another name.
    pub fn tree(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        for (path, meta) in cache::walk(from)? {
            let name = match path.strip_prefix(from) {
                Ok(rest) if rest != Path::new("") => to.join(rest),
                _ => to.to_path_buf(),
            };
            let mode = meta.permissions().mode();
            if meta.is_dir() {
                self.entry(&name, mode, (0, 0), &[])?;
            } else if meta.is_file() {
                self.entry(&name, mode, (0, 0), &fs::read(&path)?)?;
            } else if meta.is_symlink() && name.file_name() != Some(OsStr::new("build")) {
                let link = fs::read_link(&path)?;
                self.entry(&name, mode, (0, 0), link.as_os_str().as_bytes())?;
            }
        }
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[])?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_entries_are_aligned() {
        for size in 0..9 {
            let mut archive = Archive::new(Vec::new());
            let name = "n".repeat(size + 1);
            archive.file(&name, 0o644, &vec![7; size]).unwrap();
            archive.file("next", 0o644, b"x").unwrap();
            let bytes = archive.out.into_inner().unwrap();
            let next = bytes
                .windows(6)
                .rposition(|found| found == b"070701")
                .unwrap();
            assert_eq!(next % 4, 0);
            assert_eq!(bytes.len() % 4, 0);
            let name_end = 110 + name.len();
            assert_eq!(bytes[name_end], 0, "a name ends with zero");
            let data = (name_end + 1).next_multiple_of(4);
            assert_eq!(&bytes[data..data + size], vec![7; size]);
            assert_eq!(&bytes[54..62], format!("{size:08x}").as_bytes());
        }
    }
}
