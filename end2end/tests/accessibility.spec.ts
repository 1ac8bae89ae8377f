import AxeBuilder from "@axe-core/playwright";
import { expect, refused, test } from "./support";

test.use({ expectedFault: refused(401, 404, 422) });

const pages = ["/", "/login", "/register", "/replay"];

for (const colorScheme of ["light", "dark"] as const) {
  for (const viewport of [{ width: 1280, height: 900 }, { width: 320, height: 640 }]) {
    test(`axe finds nothing, nothing overflows: ${colorScheme}, ${viewport.width} px`, async ({ visitor, page }) => {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize(viewport);
      const check = async (where: string) => {
        const { violations } = await new AxeBuilder({ page }).analyze();
        expect(violations, where).toEqual([]);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        expect(overflow, `${where} is too wide`).toBeLessThanOrEqual(0);
      };
      for (const path of pages) {
        await visitor.open(path);
        await check(path);
      }
      await page.goto("/nothing/here");
      await check("/nothing/here");
      await page.getByRole("contentinfo").getByRole("link", { name: "API" }).click();
      await expect(page.getByRole("heading", { name: "The API" })).toBeVisible();
      await check("/docs");
      await visitor.open("/register");
      await page.getByRole("button", { name: "Create account" }).click();
      await expect(page.getByLabel("E-mail")).toHaveAttribute("aria-invalid", "true");
      await check("/register with errors");
      await visitor.register();
      await check("/account");
      await page.getByRole("button", { name: "Call the API" }).click();
      await page.getByText("The request and the answer").click();
      await expect(page.getByRole("group", { name: "The answer" })).toBeVisible();
      await page.getByRole("button", { name: "Fetch it now" }).click();
      await expect(page.getByText("Renewed 1 ×")).toBeVisible();
      await page.getByRole("button", { name: "Keep a copy" }).click();
      await expect(page.getByText(/^Kept/)).toBeVisible();
      await check("/account with an answer and a copy");
      await visitor.open("/sessions");
      await page.getByRole("button", { name: "End all others" }).click();
      await expect(page.getByText("Signed in", { exact: true })).toBeVisible();
      await check("/sessions with a dialog");
      await page.getByRole("button", { name: "Cancel" }).click();
      await check("/sessions");
      await visitor.open("/password");
      await page.getByRole("button", { name: "Change password" }).click();
      await expect(page.getByLabel("Current password")).toHaveAttribute("aria-invalid", "true");
      await check("/password with errors");
      await visitor.open("/cluster");
      await expect(page.getByRole("table", { name: "Running now" })).toBeVisible();
      await check("/cluster");
      await visitor.open("/account");
      await page.getByRole("button", { name: "Keep a copy" }).click();
      await visitor.signOut();
      await visitor.expectSignedOut();
      await check("/replay with a copy");
      await page.getByRole("button", { name: "Send the copy" }).click();
      await expect(page.getByRole("row", { name: /401/ })).toBeVisible();
      await check("/replay with an answer");
      await visitor.register();
      await visitor.signOut();
      await visitor.expectSignedOutInPlace();
      await check("/account, signed out");
      await visitor.open("/login");
      await visitor.signIn("admin@example.com");
      await visitor.expectAccountOf("admin@example.com");
      await visitor.open("/admin");
      await expect(page.getByRole("table", { name: "By address" })).toBeVisible();
      await check("/admin");
      await page.getByRole("button", { name: "End all sessions of everyone" }).click();
      await expect(page.getByRole("dialog")).toBeVisible();
      await check("/admin with a dialog");
    });
  }
}
