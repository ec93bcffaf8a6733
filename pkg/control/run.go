// SPDX-License-Identifier: Apache-2.0

package control

var runControls []Control

func run(id string, class Class, hint string) Control {
	return register(&runControls, Control{id, class, hint})
}

// Controls of a run: the command line, the state directory, the machine.
var (
	CommandLine   = run("KF-RUN-USAGE", Usage, "see --help for the command's flags and an example")
	InputFile     = run("KF-RUN-INPUT", Usage, "check the path of the file")
	NoTerminal    = run("KF-RUN-TERMINAL", Environment, "run it in a terminal, or give what is asked by a flag: a secret by --…-file PATH or --…-fd N, a fingerprint by --fingerprint, a confirmation by --yes")
	NotConfirmed  = run("KF-RUN-CONFIRM", Unfinished, "run the same command again and type what it asks for: an exact Yes, or the words that were heard")
	Interrupted   = run("KF-RUN-INTERRUPTED", Unfinished, "run the same command again to go on")
	SecretEmpty   = run("KF-RUN-SECRET", Usage, "give the password or PIN alone, in a file of one line or at the prompt")
	SecretShared  = run("KF-RUN-SECRET-MODE", Environment, "take the file's rights from all but its owner (chmod 600), as ssh wants it of a key")
	StateExists   = run("KF-STATE-EXISTS", Refused, "an existing state directory is never overwritten: name another one with --state")
	StateMissing  = run("KF-STATE-MISSING", Environment, "check --state and KEYFERRY_STATE, or make the state directory with the init command")
	StateForeign  = run("KF-STATE-FOREIGN", Refused, "name the state directory that this program made, with --state")
	StateBusy     = run("KF-STATE-BUSY", Environment, "wait for the other command to end, then run this one again")
	StateOwner    = run("KF-STATE-OWNER", Environment, "run the command as the user whose state directory it is, or give it to the one who runs it: chown -R USER DIR")
	StateMode     = run("KF-STATE-MODE", Environment, "take the rights from all but the owner: chmod -R go= DIR")
	StateDamaged  = run("KF-STATE-DAMAGED", Refused, "the state directory was changed by something else: restore it from its backup")
	ImportExists  = run("KF-IMPORT-EXISTS", Refused, "nothing is imported twice: see `offline status`; what is staged is sealed with `offline seal`")
	OutputExists  = run("KF-RUN-OUTPUT-EXISTS", Refused, "nothing is overwritten: move the existing file away, or name another --out")
	DiskFull      = run("KF-RUN-DISK-FULL", Environment, "make room on the disk and run the same command again")
	ReadBack      = run("KF-RUN-READ-BACK", Environment, "the medium does not give back what was written: use another one")
	Clock         = run("KF-RUN-CLOCK", Environment, "set this machine's clock first, its time zone too; if it is right, the other machine's was wrong: the same command with --clock-is-right goes on, and the ledger records it")
	MachineFailed = run("KF-RUN-MACHINE", Environment, "the operating system refused: read the message, mend it, run the same command again")
	LedgerBroken  = run("KF-LEDGER-CHAIN", Refused, "the ledger was cut or edited: keep it as evidence and restore the state directory from its backup")
	LedgerHead    = run("KF-LEDGER-HEAD", Refused, "records were cut off or replaced after their head was signed, sent or written down: keep it as evidence and restore the state directory from its backup")
)
