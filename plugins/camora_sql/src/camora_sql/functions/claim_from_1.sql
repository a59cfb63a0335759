-- As claim, from where the last one ended. What was claimed before lies in front of the index until the server has cleaned
-- up, which a long transaction of anybody keeps it from; whoever begins behind it does not walk over it each time.
-- Levels are what is known, each a priority in a queue, with the last place in it; gaps are all priorities between them.
CREATE FUNCTION {claim_from_1}(
    p_flush boolean, p_limit int, p_until bigint, p_receipt bigint, p_worker text,
    l_queues text[], l_priorities int[], l_dues bigint[], l_seqs bigint[],
    g_queues text[], g_above int[], g_below int[]
) RETURNS TABLE (
    seq bigint, priority int, due bigint, id text, queue text, body bytea, deliveries int, key text, key_ttl float8
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF NOT p_flush THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT most.place
        FROM (
            SELECT l.queue, here.*
            FROM unnest(l_queues, l_priorities, l_dues, l_seqs) AS l(queue, priority, due, seq)
            CROSS JOIN LATERAL (
                SELECT j.ctid AS place, j.priority, j.due, j.seq
                FROM {jobs} j
                WHERE j.state = 0 AND j.queue = l.queue AND j.priority = l.priority AND (j.due, j.seq) > (l.due, l.seq)
                ORDER BY j.due, j.seq
                LIMIT p_limit
                FOR UPDATE SKIP LOCKED
            ) AS here
            UNION ALL
            SELECT g.queue, here.*
            FROM unnest(g_queues, g_above, g_below) AS g(queue, above, below)
            CROSS JOIN LATERAL (
                SELECT j.ctid AS place, j.priority, j.due, j.seq
                FROM {jobs} j
                WHERE j.state = 0 AND j.queue = g.queue AND j.priority > g.above AND j.priority < g.below
                ORDER BY j.priority DESC, j.due, j.seq
                LIMIT p_limit
                FOR UPDATE SKIP LOCKED
            ) AS here
        ) AS most
        WHERE NOT EXISTS (SELECT 1 FROM {queues} p WHERE p.name = most.queue AND p.paused = 1)
        ORDER BY most.priority DESC, most.due, most.seq
        LIMIT p_limit
    )
    UPDATE {jobs} j
    SET state = 2, lease_until = p_until, receipt = p_receipt, worker = p_worker, deliveries = j.deliveries + 1
    WHERE j.ctid = ANY (ARRAY(SELECT place FROM found))
    RETURNING j.seq, j.priority, j.due, j.id::text, j.queue::text, j.body, j.deliveries, j.key, j.key_ttl;
END $$
