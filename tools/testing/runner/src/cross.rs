// SPDX-License-Identifier: GPL-2.0

//! What the s390x host has and we have not written, and the libraries of programs for it: built
//! from upstream's sources with the cross compiler of the toolchain root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cache::{self, Cache},
    error::{Context, Error, Result},
    kconfig, progress,
    source::{self, Source},
};

/// What the names of the cross compiler and its tools begin with.
pub const PREFIX: &str = "s390x-linux-gnu-";

/// What meson cannot find out about the host.
const MESON: &str = "\
[binaries]
c = 's390x-linux-gnu-gcc'
ar = 's390x-linux-gnu-ar'
strip = 's390x-linux-gnu-strip'
pkg-config = 'pkg-config'

[host_machine]
system = 'linux'
cpu_family = 's390x'
cpu = 's390x'
endian = 'big'

[properties]
have_c99_vsnprintf = true
have_c99_snprintf = true
have_unix98_printf = true
";

/// A static library.
#[derive(Hash)]
pub struct Library {
    /// Its Debian source package.
    package: &'static str,
    /// What a shell does in its source: it installs the library below $PREFIX, with $JOBS processes
    /// and, if that is how it is built, with meson's cross file $MESON.
    commands: &'static str,
}

/// What QEMU stands on; later ones need earlier ones.
pub const FOR_QEMU: &[Library] = &[
    Library {
        package: "zlib",
        commands: "
            CHOST=s390x-linux-gnu ./configure --static --prefix=$PREFIX
            make -j$JOBS install
        ",
    },
    Library {
        package: "pcre2",
        commands: "
            ./configure --host=s390x-linux-gnu --prefix=$PREFIX --disable-shared
            make -j$JOBS install-libLTLIBRARIES install-nodist_includeHEADERS install-pkgconfigDATA
        ",
    },
    // QEMU does with libglib and libgmodule. The rest would take most of the time, and need
    // libffi.
    Library {
        package: "glib2.0",
        commands: r#"
            sed -i -E -e "/^subdir\('(gobject|gthread|gio|girepository|fuzzing)'\)/d" \
                -e "/^subdir\('docs/d" -e '/^lib(ffi|z)_dep =/d' meson.build
            meson setup build --cross-file=$MESON --prefix=$PREFIX --libdir=lib \
                --buildtype=release --default-library=static --wrap-mode=nodownload \
                --auto-features=disabled -Dtests=false -Dxattr=false
            ninja -C build -j$JOBS
            meson install -C build --no-rebuild --tags=devel
        "#,
    },
];

/// libuuid, for the VFIO tests of the kernel.
pub const UUID: &[Library] = &[Library {
    package: "util-linux",
    commands: "
        meson setup build --cross-file=$MESON --prefix=$PREFIX --libdir=lib \
            --buildtype=release --default-library=static --wrap-mode=nodownload \
            --auto-features=disabled -Dbuild-libuuid=enabled
        ninja -C build -j$JOBS libuuid/libuuid.a
        meson install -C build --no-rebuild --tags=devel
    ",
}];

/// A directory with `include` and `lib` of these libraries.
pub fn sysroot(cache: &Cache, libraries: &[Library]) -> Result<PathBuf> {
    let sources = libraries
        .iter()
        .map(|library| Source::of(library.package))
        .collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = sources.iter().map(Source::name).collect();
    let key = cache::key(&(names, MESON, libraries));
    cache.make(&format!("sysroot-{key}"), |dir| {
        let meson = dir.join("meson.cross");
        fs::write(&meson, MESON).context(format!("writing {}", meson.display()))?;
        for (library, source) in libraries.iter().zip(&sources) {
            let what = format!("{} (s390x): building", library.package);
            let log = cache.log(library.package);
            let work = dir.join(library.package);
            source.unpack(&what, &log, &[], &work)?;
            let mut shell = source::command("sh", &work);
            shell
                .args(["-exc", library.commands])
                .env("PREFIX", dir)
                .env("JOBS", source::jobs())
                .env("MESON", &meson)
                .env("PKG_CONFIG_LIBDIR", pkg_config(dir));
            progress::run(&what, &mut shell, &log, |done| format!("{done} actions"))?;
        }
        for library in libraries {
            source::remove(&dir.join(library.package))?;
        }
        Ok(())
    })
}

/// Where pkg-config finds the libraries of a sysroot.
pub fn pkg_config(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/pkgconfig")
}

/// Busybox, as one static program. Its dpkg is mended: the tests install packages with it.
pub fn busybox(cache: &Cache, tree: &Path) -> Result<PathBuf> {
    let source = Source::of("busybox")?;
    let fragment = tree.join("tools/testing/busybox.config");
    let wanted = kconfig::read(&[&fragment])?;
    let patches = [tree.join("tools/testing/busybox.patch")];
    let key = cache::key(&(source.name(), &wanted, cache::files_key(&patches)?));
    let dir = cache.make(&format!("busybox-{key}"), |dir| {
        let what = "busybox (s390x)";
        let log = cache.log("busybox");
        let work = dir.join("source");
        let config = work.join(".config");
        source.unpack(&format!("{what}: unpacking"), &log, &patches, &work)?;

        // What the fragment does not name gets its default.
        let step = format!("{what}: configuring");
        fs::copy(&fragment, &config).context(&step)?;
        let mut configure = source::command("sh", &work);
        configure.args(["-c", "yes '' | make oldconfig"]);
        progress::run(&step, &mut configure, &log, |_| "make".into())?;
        let refused = kconfig::refused(&wanted, &kconfig::read(&[config])?);
        if !refused.is_empty() {
            return Err(Error::new(
                step,
                format!("busybox refused {}", refused.join(", ")),
                "Look what the option depends on, and mend tools/testing/busybox.config",
            ));
        }

        let mut make = source::command("make", &work);
        make.arg(format!("-j{}", source::jobs()))
            .arg(format!("CROSS_COMPILE={PREFIX}"))
            // Its Makefile takes an s in any option of make for the wish that it be silent.
            .args(["quiet=quiet_", "busybox"]);
        let step = format!("{what}: compiling");
        progress::run(&step, &mut make, &log, |done| {
            format!("{done} of about 490")
        })?;
        let program = dir.join("busybox");
        fs::rename(work.join("busybox"), &program).context(step)?;
        source::remove(&work)
    })?;
    Ok(dir.join("busybox"))
}
