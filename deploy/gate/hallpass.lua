-- The action `hallpass ADDRESS PATH` asks the gate about a request. It sets `txn.hallpass` to the status of the
-- answer, 503 if there is none in time, and `txn.hallpass_challenge` to the WWW-Authenticate of a refusal.

local TIMEOUT = 3000 -- milliseconds

core.register_action("hallpass", { "http-req" }, function(txn, address, path)
  local headers = txn.http:req_get_headers()
  local answer = core.httpclient():get({
    url = "http://gate" .. path,
    dst = address,
    -- All of them, so that the gate sees when there are two.
    headers = { authorization = headers["authorization"] and { table.unpack(headers["authorization"], 0) } },
    timeout = TIMEOUT,
  })
  local challenge = answer and answer.headers and answer.headers["www-authenticate"]
  txn:set_var("txn.hallpass_challenge", challenge and challenge[0] or "Bearer")
  txn:set_var("txn.hallpass", answer and answer.status or 503)
end, 2)
