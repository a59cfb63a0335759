-- Lend out the most urgent messages of these queues. What other workers are claiming at this moment is passed over.
CREATE FUNCTION {claim_1}(p_flush boolean, p_queues text[], p_limit int, p_until bigint, p_receipt bigint, p_worker text)
RETURNS TABLE (
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
        FROM unnest(p_queues) AS q(name)
        CROSS JOIN LATERAL (
            SELECT j.ctid AS place, j.priority, j.due, j.seq
            FROM {jobs} j
            WHERE j.state = 0 AND j.queue = q.name
            ORDER BY j.priority DESC, j.due, j.seq
            LIMIT p_limit
            FOR UPDATE SKIP LOCKED
        ) AS most
        WHERE NOT EXISTS (SELECT 1 FROM {queues} p WHERE p.name = q.name AND p.paused = 1)
        ORDER BY most.priority DESC, most.due, most.seq
        LIMIT p_limit
    )
    UPDATE {jobs} j
    SET state = 2, lease_until = p_until, receipt = p_receipt, worker = p_worker, deliveries = j.deliveries + 1
    WHERE j.ctid = ANY (ARRAY(SELECT place FROM found))
    RETURNING j.seq, j.priority, j.due, j.id::text, j.queue::text, j.body, j.deliveries, j.key, j.key_ttl;
END $$
