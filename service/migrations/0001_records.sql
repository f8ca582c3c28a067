-- The record of tandem-ha. Made to be read with sqlite3 too: words for states, RFC 3339 UTC for times, uuids as Nova writes them.
-- Nothing is changed here by hand while tandem-ha runs: what it holds in memory is what it believes stands here.

PRAGMA application_id = 1416520813; -- "Tndm": tells this file from other people's databases

CREATE TABLE settings (
    key        TEXT NOT NULL PRIMARY KEY, -- armed: yes or no; written_by: the version that opened this file last
    value      TEXT NOT NULL,
    changed_at TEXT
) STRICT;

-- What was learned of each host while it was well.
CREATE TABLE hosts (
    service    TEXT NOT NULL PRIMARY KEY, -- uuid of its compute service
    name       TEXT NOT NULL,
    outages    INTEGER NOT NULL,
    boot_id    TEXT,
    bmc        TEXT, -- why its BMC is believed to be its own: same system, on while alive
    bmc_system TEXT  -- the System UUID that both told
) STRICT;

-- Channels on which a host was heard at least once.
CREATE TABLE channels (
    service   TEXT NOT NULL REFERENCES hosts (service),
    network   TEXT NOT NULL,
    kind      TEXT NOT NULL, -- heartbeat, tcp
    proven_at TEXT NOT NULL,
    PRIMARY KEY (service, network, kind)
) STRICT;

CREATE TABLE incidents (
    id          TEXT NOT NULL PRIMARY KEY, -- uuid v5 of service and outage
    service     TEXT NOT NULL REFERENCES hosts (service),
    host        TEXT NOT NULL,
    outage      INTEGER NOT NULL,
    kind        TEXT NOT NULL, -- outage, reboot
    boot_id     TEXT,          -- of a reboot: the new boot
    why         TEXT NOT NULL,
    opened_at   TEXT NOT NULL,
    phase       TEXT NOT NULL,
    phase_since TEXT NOT NULL,
    hold_gate   TEXT,
    hold_why    TEXT,
    hold_since  TEXT,
    released    TEXT NOT NULL, -- gates that a person has overruled, as a JSON array
    outcome     TEXT,
    closed_at   TEXT,
    UNIQUE (service, outage)
) STRICT;
CREATE INDEX incidents_by_time ON incidents (opened_at);
CREATE INDEX incidents_by_host ON incidents (host);

-- What each gate said when it was judged last.
CREATE TABLE gates (
    incident TEXT NOT NULL REFERENCES incidents (id),
    position INTEGER NOT NULL,
    gate     TEXT NOT NULL,
    verdict  TEXT NOT NULL, -- passed, held
    why      TEXT NOT NULL,
    PRIMARY KEY (incident, position)
) STRICT;

-- Proofs that the host is off; the last one counts, unless it is void.
CREATE TABLE receipts (
    incident    TEXT NOT NULL REFERENCES incidents (id),
    position    INTEGER NOT NULL,
    kind        TEXT NOT NULL, -- redfish, manual
    by          TEXT,          -- of a manual one: who said so, and why
    why         TEXT,
    power_epoch TEXT,          -- of the others: when the power readings began to say Off
    read_at     TEXT NOT NULL,
    void        TEXT,          -- why it proves nothing any more
    PRIMARY KEY (incident, position)
) STRICT;

-- Calls that may be repeated: recorded as begun before they are sent.
CREATE TABLE calls (
    incident    TEXT NOT NULL REFERENCES incidents (id),
    call        TEXT NOT NULL, -- power off, force down, disable, clear forced down, enable
    attempts    INTEGER NOT NULL,
    begun_at    TEXT NOT NULL,
    answered_at TEXT,
    answer      TEXT,          -- done, failed
    why         TEXT,
    PRIMARY KEY (incident, call)
) STRICT;

-- Instances on their way from a dead host. An attempt is recorded here before it is sent.
CREATE TABLE moves (
    incident         TEXT NOT NULL REFERENCES incidents (id),
    instance         TEXT NOT NULL,
    name             TEXT NOT NULL,
    attempt          INTEGER NOT NULL,
    state            TEXT NOT NULL, -- waiting, intended, unknown, accepted, moved, named
    why              TEXT,
    since            TEXT,          -- of a waiting one
    not_before       TEXT,
    known            TEXT NOT NULL, -- evacuations of it that Nova knew before ours, as a JSON array
    migration        TEXT,
    migration_status TEXT,
    request_id       TEXT,
    to_service       TEXT,
    to_host          TEXT,
    intended_at      TEXT,
    ended_at         TEXT,
    PRIMARY KEY (incident, instance)
) STRICT;

-- Guests that a reboot of their host stopped.
CREATE TABLE restarts (
    incident   TEXT NOT NULL REFERENCES incidents (id),
    instance   TEXT NOT NULL,
    name       TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    state      TEXT NOT NULL, -- waiting, asked, running, named
    why        TEXT,
    not_before TEXT,
    request_id TEXT,
    asked_at   TEXT,
    PRIMARY KEY (incident, instance)
) STRICT;

-- The story of each incident, one sentence a row; `number` is its order.
CREATE TABLE timeline (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    incident TEXT NOT NULL REFERENCES incidents (id),
    at       TEXT NOT NULL,
    kind     TEXT NOT NULL, -- evidence, phase, gate, hold, fence, nova, move, operator
    instance TEXT,
    text     TEXT NOT NULL
) STRICT;
CREATE INDEX timeline_by_incident ON timeline (incident, number);
