/** A refusal with the status of the real API; the endpoint that throws it gives it the API's body. */
export class ApiError extends Error {
  constructor(status, type, message, { param = null, code = null, headers = {} } = {}) {
    super(message);
    Object.assign(this, { status, type, param, code, headers });
  }
}
