-- End deliveries: all of a batch that are still out with the token they were lent with, each with all that it brings.
-- What is settled is named by its place in p_seqs, from 1; answers the places of those that were settled.
CREATE FUNCTION {settle_1}(
    p_flush boolean, p_now bigint, p_seqs bigint[], p_receipts bigint[],
    -- done for good, and those of them whose id nothing else remembers
    p_acks int[], p_forgotten int[], f_ids text[], p_remember_until bigint,
    -- the next attempts
    p_again int[], a_queues text[], a_priorities int[], a_dues bigint[], a_expires bigint[], a_keys text[],
    a_key_ttls float8[], a_tasks text[], a_bodies bytea[],
    -- given back
    p_back int[], b_dues bigint[], b_refunds int[],
    -- dead letters
    p_dead int[], l_queues text[], l_tasks text[], l_reasons text[], l_errors text[], l_attempts int[],
    l_deliveries int[], l_died bigint[], l_bodies bytea[],
    -- records
    p_records int[], r_ids text[], r_status text[], r_final int[], r_tasks text[], r_queues text[], r_kept int[],
    r_attempts int[], r_created bigint[], r_started bigint[], r_finished bigint[], r_workers text[], r_ttls float8[],
    r_expires bigint[], r_errors text[], r_progress text[], r_values bytea[],
    -- successors
    p_next int[], n_ids text[], n_queues text[], n_priorities int[], n_dues bigint[], n_expires bigint[],
    n_keys text[], n_key_ttls float8[], n_tasks text[], n_bodies bytea[]
) RETURNS int[] LANGUAGE plpgsql AS $$
DECLARE
    settled int[] := '{{}}';
    those int[];
    ended_ids text[];
    ended_keys text[];
    ended_ttls float8[];
BEGIN
    IF NOT p_flush THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    IF cardinality(p_acks) > 0 THEN
        WITH gone AS (
            DELETE FROM {jobs} j
            USING unnest(p_acks) AS u(place)
            WHERE j.seq = p_seqs[u.place] AND j.receipt = p_receipts[u.place]
            RETURNING u.place, j.id, j.key, j.key_ttl
        )
        SELECT array_agg(g.place), array_agg(g.id) FILTER (WHERE g.key IS NOT NULL),
            array_agg(g.key) FILTER (WHERE g.key IS NOT NULL), array_agg(g.key_ttl) FILTER (WHERE g.key IS NOT NULL)
        INTO those, ended_ids, ended_keys, ended_ttls
        FROM gone g;
        settled := settled || those;
    END IF;
    IF cardinality(p_again) > 0 THEN
        WITH changed AS (
            UPDATE {jobs} j
            SET queue = a.queue, state = CASE WHEN a.due > p_now THEN 1 ELSE 0 END, priority = a.priority,
                due = CASE WHEN a.due = 0 THEN p_now ELSE a.due END, expires = a.expires, key = a.key,
                key_ttl = a.key_ttl, task = a.task, body = a.body, deliveries = 0, lease_until = 0, receipt = 0,
                worker = ''
            FROM unnest(p_again, a_queues, a_priorities, a_dues, a_expires, a_keys, a_key_ttls, a_tasks, a_bodies)
                AS a(place, queue, priority, due, expires, key, key_ttl, task, body)
            WHERE j.seq = p_seqs[a.place] AND j.receipt = p_receipts[a.place]
            RETURNING a.place
        )
        SELECT array_agg(c.place) INTO those FROM changed c;
        settled := settled || those;
    END IF;
    IF cardinality(p_back) > 0 THEN
        WITH changed AS (
            UPDATE {jobs} j
            SET state = CASE WHEN b.due > 0 THEN 1 ELSE 0 END, due = CASE WHEN b.due > 0 THEN b.due ELSE j.due END,
                deliveries = j.deliveries - b.refund, lease_until = 0, receipt = 0, worker = ''
            FROM unnest(p_back, b_dues, b_refunds) AS b(place, due, refund)
            WHERE j.seq = p_seqs[b.place] AND j.receipt = p_receipts[b.place]
            RETURNING b.place
        )
        SELECT array_agg(c.place) INTO those FROM changed c;
        settled := settled || those;
    END IF;
    IF cardinality(p_dead) > 0 THEN
        WITH gone AS (
            DELETE FROM {jobs} j
            USING unnest(p_dead, l_queues, l_tasks, l_reasons, l_errors, l_attempts, l_deliveries, l_died, l_bodies)
                AS l(place, queue, task, reason, error, attempts, deliveries, died, body)
            WHERE j.seq = p_seqs[l.place] AND j.receipt = p_receipts[l.place]
            RETURNING l.*, j.id AS job_id, j.priority, j.expires, j.key, j.key_ttl, j.task AS job_task
        ), buried AS (
            INSERT INTO {dead_letters} (id, queue, task, reason, error, attempts, deliveries, died, priority, expires, key,
                key_ttl, job_task, body)
            SELECT g.job_id, g.queue, g.task, g.reason, g.error, g.attempts, g.deliveries, g.died, g.priority, g.expires,
                g.key, g.key_ttl, g.job_task, g.body
            FROM gone g
            ON CONFLICT (id) DO UPDATE SET queue = excluded.queue, task = excluded.task, reason = excluded.reason,
                error = excluded.error, attempts = excluded.attempts, deliveries = excluded.deliveries,
                died = excluded.died, priority = excluded.priority, expires = excluded.expires, key = excluded.key,
                key_ttl = excluded.key_ttl, job_task = excluded.job_task, body = excluded.body
        )
        SELECT array_agg(g.place), ended_ids || array_agg(g.job_id) FILTER (WHERE g.key IS NOT NULL),
            ended_keys || array_agg(g.key) FILTER (WHERE g.key IS NOT NULL),
            ended_ttls || array_agg(g.key_ttl) FILTER (WHERE g.key IS NOT NULL)
        INTO those, ended_ids, ended_keys, ended_ttls
        FROM gone g;
        settled := settled || those;
    END IF;
    IF cardinality(p_records) > 0 THEN
        INSERT INTO {results} AS t (id, status, final, task, queue, kept, attempts, created, started, finished, worker,
            ttl, expires, error, progress, value)
        SELECT r.id, r.status, r.final, r.task, r.queue, r.kept, r.attempts, r.created, r.started, r.finished, r.worker,
            r.ttl, r.expires, r.error, r.progress, r.value
        FROM unnest(p_records, r_ids, r_status, r_final, r_tasks, r_queues, r_kept, r_attempts, r_created, r_started,
                r_finished, r_workers, r_ttls, r_expires, r_errors, r_progress, r_values)
            AS r(place, id, status, final, task, queue, kept, attempts, created, started, finished, worker, ttl, expires,
                error, progress, value)
        WHERE r.place = ANY (settled)
        ON CONFLICT (id) DO UPDATE SET status = excluded.status, final = excluded.final, task = excluded.task,
            queue = excluded.queue, kept = excluded.kept, attempts = excluded.attempts, created = excluded.created,
            started = excluded.started, finished = excluded.finished, worker = excluded.worker, ttl = excluded.ttl,
            expires = excluded.expires, error = excluded.error, progress = excluded.progress, value = excluded.value
        WHERE t.final = 0 OR t.expires <= p_now;
    END IF;
    IF cardinality(p_forgotten) > 0 THEN
        BEGIN
            -- Almost always new, and a look for conflicts costs as much as the rest.
            INSERT INTO {done} (id, until)
            SELECT f.id, p_remember_until FROM unnest(p_forgotten, f_ids) AS f(place, id) WHERE f.place = ANY (settled);
        EXCEPTION WHEN unique_violation THEN
            INSERT INTO {done} (id, until)
            SELECT f.id, p_remember_until FROM unnest(p_forgotten, f_ids) AS f(place, id) WHERE f.place = ANY (settled)
            ON CONFLICT (id) DO UPDATE SET until = excluded.until;
        END;
    END IF;
    IF cardinality(ended_keys) > 0 THEN
        DELETE FROM {keys} k USING unnest(ended_ids, ended_keys, ended_ttls) AS e(id, key, ttl)
        WHERE e.ttl <= 0 AND k.key = e.key AND k.job = e.id;
        UPDATE {keys} k SET until = p_now + least(round(e.ttl * 1000), 9007199254740992)::bigint
        FROM unnest(ended_ids, ended_keys, ended_ttls) AS e(id, key, ttl)
        WHERE e.ttl > 0 AND k.key = e.key AND k.job = e.id AND k.until IS NULL;
    END IF;
    IF cardinality(p_next) > 0 THEN
        PERFORM {publish_1}(p_flush, p_now, array_agg(n.id ORDER BY n.rank), array_agg(n.queue ORDER BY n.rank),
            array_agg(n.priority ORDER BY n.rank), array_agg(n.due ORDER BY n.rank), array_agg(n.expires ORDER BY n.rank),
            array_agg(n.key ORDER BY n.rank), array_agg(n.key_ttl ORDER BY n.rank), array_agg(n.task ORDER BY n.rank),
            array_agg(n.body ORDER BY n.rank))
        FROM unnest(p_next, n_ids, n_queues, n_priorities, n_dues, n_expires, n_keys, n_key_ttls, n_tasks, n_bodies)
            WITH ORDINALITY AS n(place, id, queue, priority, due, expires, key, key_ttl, task, body, rank)
        WHERE n.place = ANY (settled)
        HAVING count(*) > 0;
    END IF;
    RETURN settled;
END $$
