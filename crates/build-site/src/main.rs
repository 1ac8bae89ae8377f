//! Makes the files of the site, in release mode, from the wasm that cargo has compiled:
//!
//!     build-site target/front/wasm32-unknown-unknown/wasm-release/hallpass.wasm target/site
//!
//! It does what `cargo leptos build --release --split --precompress` does after compiling, and gives the same files the
//! same names. `make build` runs it because it compiles in two minutes on two cores, where cargo-leptos and the program of
//! wasm-bindgen take eight; `make dev`, which builds again at each change, uses these.
//!
//! The working directory is that of the workspace. `wasm-opt`, `terser` and `lightningcss` have to be in the PATH.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use brotli::enc::BrotliEncoderParams;
use flate2::{Compression, write::GzEncoder};
use rayon::prelude::*;
use wasm_bindgen_cli_support::Bindgen;
use wasm_split_cli_support::Options;

/// The folder of the files that are served as they are.
const ASSETS: &str = "public";
const STYLE: &str = "style/main.css";
/// The folder of the site for the built files.
const PKG: &str = "pkg";
/// The script that loads the parts of the wasm. The code in the wasm names it, too.
const PARTS_LOADER: &str = "./__wasm_split.______________________.js";
/// The manifest, from which the server learns which parts a lazy function needs.
const PARTS_MANIFEST: &str = "__wasm_split_manifest.json";

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [wasm, site] = arguments.as_slice() else { bail!("usage: build-site WASM SITE") };
    let name = wasm.file_stem().and_then(OsStr::to_str).context("the wasm has no name")?;
    if site.exists() {
        fs::remove_dir_all(site)?;
    }
    copy(Path::new(ASSETS), site)?;
    let pkg = site.join(PKG);
    fs::create_dir_all(&pkg)?;
    build(name, wasm, &pkg)?;
    files(site)?.par_iter().try_for_each(|file| compress(file))
}

/// Builds the files in `pkg`.
fn build(name: &str, wasm: &Path, pkg: &Path) -> Result<()> {
    let [main, script, style] =
        ["wasm", "js", "css"].map(|extension| pkg.join(format!("{name}.{extension}")));
    let mut parts = split(name, wasm, pkg)?;
    // `HydrationScripts` of Leptos expects it without `_bg`.
    fs::rename(pkg.join(format!("{name}_bg.wasm")), &main)?;
    parts.push(main);
    parts.par_iter().try_for_each(|part| {
        let features = ["--enable-bulk-memory", "--enable-nontrapping-float-to-int"];
        // The second run finds what the first has left.
        run(Command::new("wasm-opt").args(["-Oz", "-Oz"]).args(features).arg(part).arg("-o").arg(part))
    })?;
    run(Command::new("terser").args(["--module", "--compress", "--mangle", "-o"]).arg(&script).arg(&script))?;
    run(Command::new("lightningcss").args(["--minify", "--targets", "defaults", STYLE, "-o"]).arg(&style))
}

/// Splits off the parts that are loaded when they are needed, and makes the script of the main part. Returns
/// the paths of the split-off parts.
fn split(name: &str, wasm: &Path, pkg: &Path) -> Result<Vec<PathBuf>> {
    let compiled = fs::read(wasm).with_context(|| wasm.display().to_string())?;
    let main = wasm.with_file_name(format!("{name}_split.wasm"));
    let script = format!("./{name}.js");
    let mut options = Options::new(&compiled);
    options.output_dir = pkg;
    options.main_out_path = &main;
    options.main_module = &script;
    options.link_name = PARTS_LOADER;
    let split = wasm_split_cli_support::transform(options).map_err(|error| anyhow!("{error:#}"))?;
    // In order, so that two builds of the same commit give the same file.
    let parts: BTreeMap<_, _> = split.prefetch_map.iter().collect();
    fs::write(pkg.join(PARTS_MANIFEST), serde_json::to_string_pretty(&parts)?)?;
    // The parts refer to functions of the main part by names that would be left out otherwise.
    Bindgen::new()
        .web(true)?
        .keep_lld_exports(true)
        .demangle(false)
        .input_path(main)
        .out_name(name)
        .generate(pkg)?;
    Ok(split.split_modules)
}

/// Runs a program that has to succeed.
fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} does not start"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// Writes the gzip and brotli copies of a file, which the server sends to browsers that accept them.
fn compress(file: &Path) -> Result<()> {
    let bytes = fs::read(file)?;
    let with = |extension| File::create(format!("{}.{extension}", file.display()));
    let mut gzip = GzEncoder::new(with("gz")?, Compression::best());
    gzip.write_all(&bytes)?;
    gzip.finish()?;
    brotli::BrotliCompress(&mut bytes.as_slice(), &mut with("br")?, &BrotliEncoderParams::default())?;
    Ok(())
}

/// Copies a folder and all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let copy = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        fs::copy(file, copy)?;
    }
    Ok(())
}

/// All files in a folder and in those below it.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}
