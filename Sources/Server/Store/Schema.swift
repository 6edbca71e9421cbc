import GRDB

/// The tables, as people meet them in `sqlite3`. Times are integer microseconds UTC.
///
/// A migration is never edited once it has landed: another one follows it.
enum Schema {
  static var migrator: DatabaseMigrator {
    var migrator = DatabaseMigrator()
    migrator.registerMigration("1: users, workers, tasks, events") { db in
      try db.execute(sql: first)
    }
    return migrator
  }

  private static let first = """
    CREATE TABLE user (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      username TEXT NOT NULL UNIQUE,
      email TEXT NOT NULL,
      password TEXT NOT NULL,
      admin INTEGER NOT NULL CHECK (admin IN (0, 1)),
      created_at INTEGER NOT NULL
    ) STRICT;

    -- What a user logged in with. The token itself is kept nowhere.
    CREATE TABLE session (
      token_hash TEXT PRIMARY KEY,
      user_id INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
      created_at INTEGER NOT NULL,
      expires_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX session_user ON session (user_id);

    CREATE TABLE worker (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      name TEXT NOT NULL,
      store_id TEXT NOT NULL,
      credential_hash TEXT,
      status TEXT NOT NULL CHECK (status IN ('running', 'offline', 'draining', 'lost', 'deleted')),
      epoch INTEGER NOT NULL,
      concurrency INTEGER NOT NULL,
      prefetch INTEGER NOT NULL,
      permanent INTEGER NOT NULL CHECK (permanent IN (0, 1)),
      step_id INTEGER,
      hostname TEXT NOT NULL,
      ipv4 TEXT NOT NULL,
      ipv6 TEXT NOT NULL,
      cpu REAL NOT NULL,
      memory_bytes INTEGER NOT NULL,
      disk_bytes INTEGER NOT NULL,
      gpu INTEGER NOT NULL,
      engines TEXT NOT NULL,
      software TEXT NOT NULL,
      created_at INTEGER NOT NULL,
      last_beat_at INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX worker_name ON worker (name) WHERE status <> 'deleted';
    CREATE UNIQUE INDEX worker_store ON worker (store_id) WHERE status <> 'deleted';

    -- How far each worker's reports have been taken in: a report that comes twice is known by it.
    CREATE TABLE outbox_ack (
      worker_id INTEGER PRIMARY KEY REFERENCES worker ON DELETE CASCADE,
      sequence INTEGER NOT NULL
    ) STRICT;

    -- What is to be run. Never changed; many tasks may share one.
    CREATE TABLE task_spec (
      id INTEGER PRIMARY KEY,
      command TEXT NOT NULL,
      container TEXT NOT NULL,
      shell TEXT NOT NULL,
      inputs TEXT NOT NULL,
      resources TEXT NOT NULL,
      output TEXT NOT NULL,
      env TEXT NOT NULL,
      container_options TEXT NOT NULL,
      cpu REAL NOT NULL,
      memory_bytes INTEGER NOT NULL,
      disk_bytes INTEGER NOT NULL,
      gpu INTEGER NOT NULL,
      download_timeout_ms INTEGER NOT NULL,
      run_timeout_ms INTEGER NOT NULL,
      upload_timeout_ms INTEGER NOT NULL,
      publish TEXT NOT NULL,
      publish_move INTEGER NOT NULL CHECK (publish_move IN (0, 1)),
      skip_if_exists INTEGER NOT NULL CHECK (skip_if_exists IN (0, 1))
    ) STRICT;

    CREATE TABLE task (
      id INTEGER PRIMARY KEY,
      spec_id INTEGER NOT NULL REFERENCES task_spec,
      name TEXT NOT NULL,
      owner_id INTEGER NOT NULL,
      step_id INTEGER,
      status TEXT NOT NULL
        CHECK (status IN ('I', 'W', 'P', 'A', 'C', 'D', 'O', 'R', 'U', 'V', 'S', 'F', 'Z', 'X')),
      priority INTEGER NOT NULL,
      weight_milli INTEGER NOT NULL CHECK (weight_milli > 0),
      place INTEGER NOT NULL,
      unmet INTEGER NOT NULL CHECK (unmet >= 0),
      worker_id INTEGER REFERENCES worker,
      assignment INTEGER NOT NULL,
      avoid_worker_id INTEGER,
      retry INTEGER NOT NULL CHECK (retry >= 0),
      attempt INTEGER NOT NULL,
      losses INTEGER NOT NULL,
      previous_task_id INTEGER,
      next_task_id INTEGER,
      hidden INTEGER NOT NULL CHECK (hidden IN (0, 1)),
      accept_failure INTEGER NOT NULL CHECK (accept_failure IN (0, 1)),
      cancel_with_prerequisite INTEGER NOT NULL CHECK (cancel_with_prerequisite IN (0, 1)),
      cancel_requested INTEGER NOT NULL CHECK (cancel_requested IN (0, 1)),
      -- Whether it is still to be looked at whether its output exists: one of what is unmet.
      unchecked INTEGER NOT NULL CHECK (unchecked IN (0, 1)),
      reason TEXT,
      message TEXT,
      exit_code INTEGER,
      out_bytes INTEGER NOT NULL,
      err_bytes INTEGER NOT NULL,
      inputs TEXT,
      outputs TEXT,
      created_at INTEGER NOT NULL,
      assigned_at INTEGER,
      download_started_at INTEGER,
      run_started_at INTEGER,
      run_ended_at INTEGER,
      ended_at INTEGER
    ) STRICT;
    -- Most tasks end well, and nobody looks for those by their status: the newest are met at once.
    CREATE INDEX task_status ON task (status, id) WHERE status <> 'S';
    CREATE INDEX task_worker ON task (worker_id, id) WHERE worker_id IS NOT NULL;
    CREATE INDEX task_step ON task (step_id, id) WHERE step_id IS NOT NULL;

    CREATE TABLE dependency (
      task_id INTEGER NOT NULL REFERENCES task,
      prerequisite_id INTEGER NOT NULL REFERENCES task,
      met INTEGER NOT NULL CHECK (met IN (0, 1)),
      PRIMARY KEY (task_id, prerequisite_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX dependency_prerequisite ON dependency (prerequisite_id) WHERE met = 0;

    -- How many tasks stand where, by step (0: no step). Kept by the transaction that moves them; hidden ones apart.
    CREATE TABLE task_count (
      step_id INTEGER NOT NULL,
      status TEXT NOT NULL,
      hidden INTEGER NOT NULL,
      count INTEGER NOT NULL CHECK (count >= 0),
      PRIMARY KEY (step_id, status, hidden)
    ) STRICT, WITHOUT ROWID;

    -- Everything that ever happened. One row may stand for a run of consecutive ids to which the same happened at once.
    CREATE TABLE event (
      sequence INTEGER PRIMARY KEY AUTOINCREMENT,
      at INTEGER NOT NULL,
      object TEXT NOT NULL,
      first_id INTEGER NOT NULL,
      last_id INTEGER NOT NULL,
      from_status TEXT,
      to_status TEXT NOT NULL,
      worker_id INTEGER,
      user_id INTEGER,
      reason TEXT
    ) STRICT;

    -- A creation that a client sends twice is done once.
    CREATE TABLE idempotency (
      user_id INTEGER NOT NULL,
      key TEXT NOT NULL,
      first_id INTEGER NOT NULL,
      count INTEGER NOT NULL,
      created_at INTEGER NOT NULL,
      PRIMARY KEY (user_id, key)
    ) STRICT, WITHOUT ROWID;
    """
}
