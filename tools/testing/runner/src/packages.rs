// SPDX-License-Identifier: GPL-2.0

//! Packages: what users install. scripts/package makes them; here they are tried.

use std::{
    fs,
    io::ErrorKind::NotFound,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::{self, Cache, Scratch},
    error::{Context, Error, Result},
    guest, kconfig,
    kernel::{Compiler, Flavour, Kernel},
    ktap::Test,
    progress, source,
};

/// Where they are described.
const DIR: &str = "scripts/package";

/// What a package's name ends with.
const PACKAGES: &[&str] = &["deb", "rpm"];

/// The tool, as program and as package.
const TOOL: &str = "zpci-io";

/// Installs the packages in a host that has nothing of what is in them.
pub const COMMAND: &str = "rm -r /bin/zpci-io /lib/modules/* && install-test";

/// Has a host that has one kernel installed install the next one and be booted with it. What was installed
/// goes through a port into a file, which is there in the second boot.
pub const UPGRADE: [&str; 2] = [
    "\
rm -r /bin/zpci-io /lib/modules/* && install-test first-kernel
port=$(grep -l installed /sys/class/virtio-ports/*/name)
port=${port%/name}
tar -c $(ls -d /boot /etc /lib/modules /usr /var 2>/dev/null) >/dev/${port##*/}",
    "rm -r /bin/zpci-io /lib/modules/* && tar -xf /installed -C / && install-test next-kernel",
];

/// The port of the first boot, and the file of the second.
pub const INSTALLED: &str = "installed";

/// The version of the packages to which the tests upgrade.
const NEXT: &str = "99.0";

/// Where the tests have both versions.
const FIRST: &str = "packages-1";
const SECOND: &str = "packages-2";
/// What a kernel that checks signatures would take.
const SIGNED: &str = "signed.ko";

/// `packages`: of the module's source and of the tool.
pub fn show(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let scratch = Scratch::new(&cache)?;
    let dir = scratch.path("packages");
    build(&cache, tree, &dir, None)?;
    let made = found(&dir, PACKAGES)?;
    publish(tree, &made)?;
    let objections = lint(&cache, tree, &made)?;
    for objection in &objections {
        println!("{objection}");
    }
    Ok(u8::from(!objections.is_empty()))
}

/// `kernel-packages`: of the release kernel, its headers, and the module for it.
pub fn show_kernel(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let scratch = Scratch::new(&cache)?;
    publish(tree, &all(&cache, tree, &scratch.path("packages"))?)?;
    Ok(0)
}

/// `hardware-kit`: what of that a mainframe can use in one archive, with a script that tries a function.
pub fn show_kit(tree: &Path) -> Result<u8> {
    let cache = Cache::open()?;
    let scratch = Scratch::new(&cache)?;
    let dir = scratch.path("packages");
    let mut packages = all(&cache, tree, &dir)?;
    packages.retain(|path| !is_for_us(path));
    publish(tree, &kit(&cache, tree, &dir, &packages)?)?;
    Ok(0)
}

/// All packages; what is not kept in the cache, in `dir`.
fn all(cache: &Cache, tree: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    let kernel = Kernel::get(cache, Flavour::Release, tree)?;
    let OfKernel {
        mut packages,
        headers,
    } = kernel_packages(cache, tree, &kernel)?;
    build(cache, tree, dir, None)?;
    module(cache, tree, &headers, dir)?;
    packages.extend(found(dir, PACKAGES)?);
    Ok(packages)
}

/// The kit for hardware with these packages, made in the directory in which they were made.
fn kit(cache: &Cache, tree: &Path, dir: &Path, packages: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut script = script(tree, "build-kit");
    script.arg(dir).arg(dir.join(TOOL)).args(packages);
    run(cache, "hardware kit", &mut script)?;
    found(dir, &["xz"])
}

/// Puts packages where the user sees them.
fn publish(tree: &Path, packages: &[PathBuf]) -> Result<()> {
    let dir = tree.join("packages");
    fs::create_dir_all(&dir).context(format!("making {}", dir.display()))?;
    for package in packages {
        let path = dir.join(package.file_name().unwrap_or_default());
        fs::copy(package, &path).context(format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Makes the packages of the module's source and of the tool in `dir`; with another version than the
/// tree's, if one is given.
fn build(cache: &Cache, tree: &Path, dir: &Path, version: Option<&str>) -> Result<()> {
    const STEP: &str = "packages";
    let program = guest::tool(cache, tree)?;
    fs::create_dir_all(dir).context(STEP)?;
    let path = dir.join(TOOL);
    fs::write(&path, program).context(STEP)?;
    let mut script = script(tree, "build");
    run(cache, STEP, script.arg(&path).arg(dir).args(version))
}

/// What is made once of a kernel.
struct OfKernel {
    packages: Vec<PathBuf>,
    /// What is in the package of its headers.
    headers: PathBuf,
}

/// The packages of a kernel and its headers.
fn kernel_packages(cache: &Cache, tree: &Path, kernel: &Kernel) -> Result<OfKernel> {
    const STEP: &str = "kernel packages";
    let key = cache::key(&(&kernel.key, cache::files_key(&[tree.join(DIR)])?));
    let dir = cache.make(&format!("kernel-packages-{key}"), |dir| {
        let mut script = script(tree, "build-kernel");
        run(cache, STEP, script.arg(&kernel.build).arg(dir))?;
        let mut unpack = source::command("dpkg-deb", dir);
        let package = found(dir, PACKAGES)?;
        let package = named(&package, "linux-headers-")?;
        run(
            cache,
            STEP,
            unpack.arg("-x").args([package, &dir.join("root")]),
        )?;
        for left in ["image", "headers", "rpm"] {
            source::remove(&dir.join(left))?;
        }
        Ok(())
    })?;
    let headers = fs::read_dir(dir.join("root/usr/src"))
        .and_then(|mut entries| entries.next().unwrap_or(Err(NotFound.into())))
        .context(STEP)?;
    Ok(OfKernel {
        packages: found(&dir, PACKAGES)?,
        headers: headers.path(),
    })
}

/// Makes the packages of the module for a kernel in `dir`, from the package of the module's source that
/// is there and what is in that of the kernel's headers, and from nothing else.
fn module(cache: &Cache, tree: &Path, headers: &Path, dir: &Path) -> Result<()> {
    let mut script = script(tree, "build-module");
    script
        .arg(named(&found(dir, PACKAGES)?, "zpci-vfio-pci-dkms_")?)
        .arg(headers)
        .arg(dir);
    run(cache, "module packages: DKMS", &mut script)
}

/// What lintian and rpmlint say against packages, but for what is listed with its reason: in
/// `scripts/package/debian` and `rpmlint.toml`.
fn lint(cache: &Cache, tree: &Path, packages: &[PathBuf]) -> Result<Vec<String>> {
    let of = |suffix: &str| {
        let suffix = suffix.to_string();
        packages
            .iter()
            .filter(move |path| path.extension().is_some_and(|found| *found == *suffix))
    };
    let mut lintian = Command::new("lintian");
    lintian
        .args([
            "--allow-root",
            "--tag-display-limit=0",
            "--pedantic",
            "--display-info",
        ])
        .arg("--fail-on=error,warning,info,pedantic")
        .args(of("deb"));
    let mut rpmlint = Command::new("rpmlint");
    rpmlint
        .arg("--strict")
        .arg("--config")
        .arg(tree.join(DIR).join("rpmlint.toml"))
        .args(of("rpm"));
    let mut objections = Vec::new();
    for (name, command) in [("lintian", &mut lintian), ("rpmlint", &mut rpmlint)] {
        let log = cache.log(name);
        if !progress::try_run(name, command, &log, |_| "running".into())?.success() {
            let text = fs::read_to_string(&log).context(format!("reading {}", log.display()))?;
            objections.extend(text.lines().map(|line| format!("{name}: {line}")));
        }
    }
    Ok(objections)
}

/// What the tests install in the host: the kernel, and the rest in two versions; and a signed module.
pub fn files(
    cache: &Cache,
    tree: &Path,
    kernel: &Kernel,
    scratch: &Scratch,
) -> Result<Vec<PathBuf>> {
    let of_kernel = kernel_packages(cache, tree, kernel)?;
    let mut files = of_kernel.packages;
    for (dir, version) in [(SECOND, Some(NEXT)), (FIRST, None)] {
        let dir = scratch.path(dir);
        build(cache, tree, &dir, version)?;
        module(cache, tree, &of_kernel.headers, &dir)?;
        files.extend(found(&dir, PACKAGES)?);
    }
    files.retain(|path| !is_for_us(path));
    shell(cache, tree, kernel, scratch, "signing", SIGN)?;
    files.push(scratch.path(SIGNED));
    // Without the kernel, which would only take memory in the host.
    let dir = scratch.path(FIRST);
    files.extend(kit(cache, tree, &dir, &found(&dir, PACKAGES)?)?);
    Ok(files)
}

/// What an upgrade of the kernel takes: both, the module for each of them, which one DKMS has built, and
/// the tool.
pub fn for_upgrade(
    cache: &Cache,
    tree: &Path,
    kernels: &[Kernel],
    scratch: &Scratch,
) -> Result<Vec<PathBuf>> {
    let dir = scratch.path(FIRST);
    build(cache, tree, &dir, None)?;
    let mut files = Vec::new();
    for kernel in kernels {
        let of_kernel = kernel_packages(cache, tree, kernel)?;
        module(cache, tree, &of_kernel.headers, &dir)?;
        files.extend(of_kernel.packages);
    }
    files.extend(found(&dir, PACKAGES)?);
    files.retain(|path| !is_for_us(path) && path.extension().is_some_and(|kind| kind == "deb"));
    Ok(files)
}

/// Whether DKMS, when a kernel goes, removes what it has built for it, and nothing else.
pub fn leaves_dkms(cache: &Cache, tree: &Path, kernel: &Kernel, scratch: &Scratch) -> Test {
    tried(
        cache,
        tree,
        kernel,
        scratch,
        "DKMS: the first kernel goes",
        ONE_GOES,
    )
}

/// What is tried of these packages on this machine.
pub fn tests(cache: &Cache, tree: &Path, kernel: &Kernel, scratch: &Scratch) -> Result<Vec<Test>> {
    let packages = found(&scratch.path(FIRST), PACKAGES)?;
    let ours = |package: &&PathBuf| !is_named(package, "zpci-vfio-pci-modules-");
    let ours: Vec<_> = packages.iter().filter(ours).cloned().collect();
    let passes = |what, script| tried(cache, tree, kernel, scratch, what, script);
    Ok(vec![
        Test::check("lintian and rpmlint", lint(cache, tree, &ours)?),
        passes("DKMS passes over kernels that cannot have it", PASSED_OVER),
        passes(
            "rpm: install, upgrade, erase, with scripts, and nothing is left",
            RPM,
        ),
        passes("the signature of a module", VERIFY),
        Test::check(
            "the configuration fragment fits",
            fragment(cache, tree, kernel, scratch)?,
        ),
    ])
}

/// Signs the module as a kernel with CONFIG_MODULE_SIG wants it.
const SIGN: &str = r#"
gcc -I"$SOURCE/scripts" -I"$SOURCE/tools/include/uapi" -o sign-file "$SOURCE/scripts/sign-file.c" -lcrypto
openssl req -new -x509 -nodes -days 1 -subj /CN=test -newkey rsa:2048 -keyout key.pem -out cert.pem
cp packages-1/module/lib/modules/*/updates/dkms/zpci-vfio-pci.ko unsigned.ko
./sign-file sha256 key.pem cert.pem unsigned.ko signed.ko
"#;

/// The signature stands between the module and 40 bytes, which tell its size among others. It holds for
/// the module, and not for another.
const VERIFY: &str = r#"
size=$(stat -c %s unsigned.ko)
length=$(tail -c 32 signed.ko | head -c 4 | od -An -tu4 --endian=big)
[ $(stat -c %s signed.ko) -eq $((size + length + 40)) ]
tail -c +$((size + 1)) signed.ko | head -c $length >signature
check() {
	openssl cms -verify -binary -inform DER -in signature -content $1 -certfile cert.pem \
		-nointern -noverify -out verified
}
check unsigned.ko
printf x | dd of=unsigned.ko bs=1 seek=$((size / 2)) conv=notrunc
! check unsigned.ko
"#;

/// With 77 DKMS ends where a kernel cannot have the module, and is content.
const PASSED_OVER: &str = r#"
cd packages-1
version=$(ls dkms/zpci-vfio-pci)
grep -v '^CONFIG_RUST=' "$HEADERS/.config" >no-rust
passes_over() {
	code=0
	dkms build zpci-vfio-pci/$version -k $1/s390x --sourcetree "$PWD/source/usr/src" \
		--dkmstree "$PWD/dkms" --kernelsourcedir "$HEADERS" --config $2 || code=$?
	[ $code -eq 77 ]
}
passes_over 7.1.9 "$HEADERS/.config"
passes_over 7.3.9 "$PWD/no-rust"
"#;

/// As the hook of a kernel's package has it do.
const ONE_GOES: &str = r#"
cd packages-1
version=$(ls dkms/zpci-vfio-pci)
release=$(cat "$HEADERS/include/config/kernel.release")
built() { find dkms -name zpci-vfio-pci.ko | wc -l; }
[ $(built) -eq 2 ]
dkms remove zpci-vfio-pci/$version -k $release/s390x --sourcetree "$PWD/source/usr/src" \
	--dkmstree "$PWD/dkms"
[ $(built) -eq 1 ]
[ ! -e dkms/zpci-vfio-pci/$version/$release ]
"#;

/// Below a directory, where their scripts find what they want: a shell, and in the place of programs of an
/// s390x host such as tell how they were called.
const RPM: &str = r#"
root=$PWD/rpm-root
for file in /bin/sh /bin/rm /bin/rmdir $(ldd /bin/sh /bin/rm /bin/rmdir | grep -o '/[^ :]*'); do
	install -D $file $root$file
done
mkdir $root/dev $root/usr $root/usr/bin
: >$root/dev/null
cat >called <<'END'
#!/bin/sh
echo "${0##*/} $*" >>/log
[ ${0##*/} != depmod ] || echo >/lib/modules/$1/modules.dep
END
for program in depmod dkms kernel-install; do
	install called $root/usr/bin/$program
done
find rpm-root ! -type d | sort >before

do_rpm() { rpm --root $root --dbpath /rpm "$@"; }
calls() { grep "^$1 " $root/log || :; }
version=$(ls packages-1/dkms/zpci-vfio-pci)
release=$(cat "$HEADERS/include/config/kernel.release")
do_rpm --initdb
do_rpm -i --nodeps --ignorearch "${HEADERS%/root/*}"/kernel-zpci-*.rpm packages-1/*.rpm
[ -x $root/usr/sbin/zpci-io ]
[ -e $root/usr/src/zpci-vfio-pci-$version/dkms.conf ]
[ -x $root/usr/src/zpci-vfio-pci-$version/scripts/package/headers ]
[ -e $root/usr/src/zpci-vfio-pci-$version/scripts/package/kernel.config ]
[ -e $root/lib/modules/$release/modules.dep ]
do_rpm -U --nodeps --ignorearch packages-2/*.rpm
[ $(do_rpm -qa | wc -l) -eq 4 ]
[ $(do_rpm -qa --queryformat '%{VERSION}\n' | grep -c "^$NEXT$") -eq 3 ]
[ -e $root/lib/modules/$release/modules.dep ]
do_rpm -e --nodeps $(do_rpm -qa)
calls dkms >calls
diff calls - <<END
dkms add -m zpci-vfio-pci -v $version --rpm_safe_upgrade
dkms build -m zpci-vfio-pci -v $version
dkms install -m zpci-vfio-pci -v $version --force
dkms add -m zpci-vfio-pci -v $NEXT --rpm_safe_upgrade
dkms build -m zpci-vfio-pci -v $NEXT
dkms install -m zpci-vfio-pci -v $NEXT --force
dkms remove -m zpci-vfio-pci -v $version --all --rpm_safe_upgrade
dkms remove -m zpci-vfio-pci -v $NEXT --all --rpm_safe_upgrade
END
calls kernel-install >calls
diff calls - <<END
kernel-install add $release /boot/vmlinuz-$release
kernel-install remove $release
END
rm -r $root/log $root/rpm
find rpm-root ! -type d | sort | diff before -
[ -z "$(find rpm-root -name '*zpci*' -o -path "*/lib/modules/$release")" ]
"#;

/// A test that a script is.
fn tried(
    cache: &Cache,
    tree: &Path,
    kernel: &Kernel,
    scratch: &Scratch,
    what: &str,
    script: &str,
) -> Test {
    match shell(cache, tree, kernel, scratch, what, script) {
        Ok(()) => Test::check(what, Vec::new()),
        Err(error) => Test::failed(what, error.to_string()),
    }
}

/// Runs a script where the tests have their files.
fn shell(
    cache: &Cache,
    tree: &Path,
    kernel: &Kernel,
    scratch: &Scratch,
    what: &str,
    script: &str,
) -> Result<()> {
    let mut shell = source::command("sh", &scratch.path("."));
    shell
        .args(["-exc", script])
        .env("SOURCE", &kernel.source)
        .env("HEADERS", kernel_packages(cache, tree, kernel)?.headers)
        .env("NEXT", NEXT);
    run(cache, what, &mut shell)
}

/// What s390's own configuration refuses of the fragment for users, with clang and with GCC.
fn fragment(cache: &Cache, tree: &Path, kernel: &Kernel, scratch: &Scratch) -> Result<Vec<String>> {
    const STEP: &str = "the configuration fragment";
    let fragment = tree.join(DIR).join("kernel.config");
    let wanted = kconfig::read(&[&fragment])?;
    let mut objections = Vec::new();
    for compiler in Compiler::ALL.map(Compiler::argument) {
        let dir = scratch.path("config");
        fs::create_dir_all(&dir).context(STEP)?;
        let config = dir.join(".config");
        let make = |goal: &str| {
            let mut make = source::command("make", &kernel.source);
            make.arg(format!("O={}", dir.display()))
                .args(["ARCH=s390", &compiler, goal]);
            run(cache, STEP, &mut make)
        };
        make("defconfig")?;
        let merge = kernel.source.join("scripts/kconfig/merge_config.sh");
        let mut merge = source::command(&merge.display().to_string(), &dir);
        merge.args(["-m", "-O"]).args([&dir, &config, &fragment]);
        run(cache, STEP, &mut merge)?;
        make("olddefconfig")?;
        let refused = kconfig::refused(&wanted, &kconfig::read(&[&config])?);
        objections.extend(refused.iter().map(|option| format!("{compiler}: {option}")));
        source::remove(&dir)?;
    }
    Ok(objections)
}

fn script(tree: &Path, name: &str) -> Command {
    source::command(&tree.join(DIR).join(name).display().to_string(), tree)
}

fn run(cache: &Cache, what: &str, command: &mut Command) -> Result<()> {
    let log = cache.log("packages");
    progress::run(what, command, &log, |done| format!("{done} actions"))
}

/// The files of these kinds in a directory.
fn found(dir: &Path, kinds: &[&str]) -> Result<Vec<PathBuf>> {
    let step = || format!("reading {}", dir.display());
    let mut packages = Vec::new();
    for entry in fs::read_dir(dir).context(step())? {
        let path = entry.context(step())?.path();
        let kind = path.extension().unwrap_or_default();
        if kinds.iter().any(|wanted| kind == *wanted) {
            packages.push(path);
        }
    }
    packages.sort();
    Ok(packages)
}

/// The one whose name begins so.
fn named<'a>(packages: &'a [PathBuf], name: &str) -> Result<&'a Path> {
    let package = packages.iter().find(|path| is_named(path, name));
    package
        .map(PathBuf::as_path)
        .ok_or_else(|| Error::new("packages", format!("there is no {name}*"), ""))
}

/// Whether what is in a package is for this machine, which builds modules for the other.
fn is_for_us(package: &Path) -> bool {
    is_named(package, "linux-headers-")
}

fn is_named(path: &Path, name: &str) -> bool {
    let file = path.file_name().unwrap_or_default();
    file.to_string_lossy().starts_with(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> String {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        fs::read_to_string(tree.join(path)).unwrap()
    }

    #[test]
    fn there_is_one_version() {
        let tool = read("tools/zpci-io/Cargo.toml");
        let version = tool
            .lines()
            .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
            .unwrap();
        let changelog = read("scripts/package/debian/changelog");
        assert!(changelog.starts_with(&format!("zpci-vfio-pci ({version}) ")));
        let spec = read("scripts/package/zpci-vfio-pci.spec");
        assert!(spec.contains(&format!("\nVersion:        {version}\n")));
        assert!(read("CHANGELOG.md").contains(&format!("\n## {version}")));
    }

    #[test]
    fn users_are_told_to_set_what_the_tests_run_with() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let told = kconfig::read(&[tree.join(DIR).join("kernel.config")]).unwrap();
        let ours = kconfig::read(&[tree.join("tools/testing/kernel/base.config")]).unwrap();
        for (name, value) in told {
            let ours = ours.get(&name).map_or("n", String::as_str);
            assert_eq!(ours == "n", value == "n", "{name}");
        }
    }
}
