//! Completions and the man page, from the same definition as `--help`.

use clap_complete::Shell as Known;
use clap_mangen::Man;

use crate::args::{self, Shell};
use crate::failure::{Ending, Failure};
use crate::out;

const REST: &str = r#".SH FILES
.TP
.I /run/tandem/ha.sock
The control socket of tandem\-ha, open to root alone: what is asked where nothing else is named.
.TP
.I /run/tandem/node.sock
The control socket of tandem\-node, likewise.
.TP
.IR ~/.config/tandem/tandem.toml ", " /etc/tandem/tandem.toml
Other addresses, for the user and for the host: \fBha = "URL"\fR, \fBnode = "URL"\fR or
\fBnode = ["URL", ...]\fR; and with what TLS is spoken to tandem\-node: \fBtls_ca\fR, \fBtls_cert\fR and
\fBtls_key\fR, files in PEM, relative to the file that names them.
.SH ENVIRONMENT
.TP
.B TANDEM_HA_URL
Another address of tandem\-ha; \fB\-\-ha\fR overrides it, and it overrides the files.
.TP
.B TANDEM_NODE_URL
Another address of tandem\-node, or several with commas between; likewise.
.TP
.BR TANDEM_TLS_CA ", " TANDEM_TLS_CERT ", " TANDEM_TLS_KEY
The CA, our certificate and its key; each overrides its key in the files.
.TP
.B NO_COLOR
No colours on a terminal.
"#;

/// Into memory first: the generator panics where a pipe is closed.
pub(crate) fn completions(shell: Shell) -> Result<Ending, Failure> {
    let shell = match shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::definition(), "tandem", &mut script);
    out::bytes(&script)?;
    Ok(Ending::Done)
}

/// One page for all: at night nobody looks for tandem-incident-show(1).
pub(crate) fn man() -> Result<Ending, Failure> {
    let mut command = args::definition();
    command.build();
    let page = Man::new(command.clone()).manual("Tandem");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    for (name, sub) in leaves(&command, "tandem") {
        text.extend(section(&name, sub)?);
    }
    page.render_extra_section(&mut text)?;
    text.extend(REST.as_bytes());
    // Our help ends with notes and examples; the generator calls that EXTRA.
    out::print(&String::from_utf8_lossy(&text).replace("SH EXTRA", "SH NOTES").replace("SS EXTRA", "SS NOTES"))?;
    Ok(Ending::Done)
}

/// The commands that can be given, with the words that give them.
fn leaves<'a>(command: &'a clap::Command, words: &str) -> Vec<(String, &'a clap::Command)> {
    let subs = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    subs.flat_map(|sub| {
        let words = format!("{words} {}", sub.get_name());
        if sub.has_subcommands() { leaves(sub, &words) } else { vec![(words, sub)] }
    })
    .collect()
}

/// A command's own page, one level down, without the options that all have.
fn section(name: &str, command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let globals = command.get_arguments().filter(|argument| argument.is_global_set());
    let hidden: Vec<_> = globals.map(|argument| argument.get_id().clone()).collect();
    let command =
        hidden.iter().fold(command.clone(), |command, id| command.mut_arg(id, |argument| argument.hide(true)));
    let page = Man::new(command.disable_help_flag(true).bin_name(name.to_owned()));
    let mut text = Vec::new();
    page.render_description_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_options_section(&mut text)?;
    page.render_extra_section(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace("\n.SH ", "\n.SS ").replace(".SH DESCRIPTION\n", "");
    Ok(format!(".SH \"{}\"\n{text}", name.to_uppercase()).into_bytes())
}
