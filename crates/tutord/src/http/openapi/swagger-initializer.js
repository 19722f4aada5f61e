"use strict";

// A browser sends the cookies of a log-in by itself, but not the CSRF token that writing methods repeat in a header.
const READING = ["GET", "HEAD", "OPTIONS"];

const addCsrfToken = (request) => {
  const token = document.cookie.match(/(?:^|; )csrf_token=([^;]*)/)?.[1];
  if (token && !READING.includes((request.method ?? "GET").toUpperCase())) {
    request.headers["X-CSRF-Token"] = token;
  }
  return request;
};

window.onload = () => {
  window.ui = SwaggerUIBundle({
    url: "/api/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    plugins: [SwaggerUIBundle.plugins.DownloadUrl],
    layout: "StandaloneLayout",
    validatorUrl: null,
    requestInterceptor: addCsrfToken,
  });
};
