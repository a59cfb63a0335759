-- As publish, for one message without a key.
CREATE FUNCTION {publish_one_1}(
    p_flush boolean, p_now bigint, p_id text, p_queue text, p_priority int, p_due bigint, p_expires bigint,
    p_key_ttl float8, p_task text, p_body bytea
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT p_flush THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    INSERT INTO {jobs} (id, queue, state, priority, due, expires, key_ttl, task, body)
    VALUES (p_id, p_queue, CASE WHEN p_due > p_now THEN 1 ELSE 0 END, p_priority,
        CASE WHEN p_due = 0 THEN p_now ELSE p_due END, p_expires, p_key_ttl, p_task, p_body)
    ON CONFLICT (id) DO NOTHING;
    IF FOUND AND (
        EXISTS (SELECT 1 FROM {results} r WHERE r.id = p_id AND r.final = 1)
        OR EXISTS (SELECT 1 FROM {done} d WHERE d.id = p_id)
        OR EXISTS (SELECT 1 FROM {dead_letters} l WHERE l.id = p_id)
    ) THEN
        DELETE FROM {jobs} WHERE id = p_id;
    END IF;
END $$
