//! Every story of `scenarios/` is told as it stands there. `UPDATE=1` writes down what is told now, unless it breaks a promise.

use std::fs;
use std::path::Path;

use crate::sim::story::{BROKEN, LINE, Story};

#[test]
fn every_story_is_told_as_it_was_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> =
        fs::read_dir(&folder).expect("the stories").map(|file| file.expect("a story").path()).collect();
    files.sort();
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = String::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a story");
        let (input, expected) = text.split_once(&format!("{LINE}\n")).unwrap_or((&text, ""));
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let story = Story::read(input).unwrap_or_else(|error| panic!("{name}: {error}"));
        let told = story.tell();
        if told == expected && !told.contains(BROKEN) {
            continue;
        }
        if update && !told.contains(BROKEN) {
            fs::write(file, format!("{}\n{LINE}\n{told}", input.trim_end())).expect("the story is written");
        } else {
            wrong.push_str(&format!("{name}: was to be told\n{expected}and is told\n{told}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}UPDATE=1 writes this down.");
    assert!(update || files.len() >= 40, "only {} stories", files.len());
}
