-- Make leases last longer; answers the places of those messages that are unfinished and still out with this token, and
-- until when they are. One that somebody has locked is passed over, and keeps the lease that it has: it is being settled
-- at this moment, and needs no other, or whoever has locked it may take his time.
CREATE FUNCTION {extend_1}(p_flush boolean, p_seqs bigint[], p_receipts bigint[], p_until bigint)
RETURNS TABLE (seq bigint, receipt bigint, lease_until bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF NOT p_flush THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    WITH held AS MATERIALIZED (
        SELECT j.ctid AS place
        FROM unnest(p_seqs, p_receipts) AS u(seq, receipt)
        JOIN {jobs} j ON j.seq = u.seq AND j.receipt = u.receipt
        WHERE j.state = 2
        FOR UPDATE OF j SKIP LOCKED
    )
    UPDATE {jobs} j SET lease_until = p_until WHERE j.ctid = ANY (ARRAY(SELECT place FROM held));
    RETURN QUERY
    SELECT j.seq, j.receipt, j.lease_until
    FROM unnest(p_seqs, p_receipts) AS u(seq, receipt)
    JOIN {jobs} j ON j.seq = u.seq AND j.receipt = u.receipt;
END $$
