-- Who armed or disarmed it, when and why: the last row says what holds.
CREATE TABLE arming (
    number  INTEGER PRIMARY KEY,
    at      TEXT NOT NULL,
    armed   TEXT NOT NULL, -- yes, no
    said_by TEXT NOT NULL,
    why     TEXT NOT NULL
) STRICT;

INSERT INTO arming (at, armed, said_by, why)
    SELECT coalesce(changed_at, '1970-01-01T00:00:00.000Z'), value, 'somebody', 'not recorded'
    FROM settings WHERE key = 'armed';
DELETE FROM settings WHERE key = 'armed';
