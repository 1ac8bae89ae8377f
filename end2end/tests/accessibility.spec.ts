import AxeBuilder from "@axe-core/playwright";
import { expect, refused, test } from "./support";

test.use({ expectedFault: refused(404, 422) });

const pages = ["/", "/login", "/register", "/nothing/here"];

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
      await visitor.open("/register");
      await page.getByRole("button", { name: "Create account" }).click();
      await expect(page.getByLabel("E-mail")).toHaveAttribute("aria-invalid", "true");
      await check("/register with errors");
      await visitor.register();
      await check("/account");
      await visitor.open("/cluster");
      await expect(page.getByRole("table", { name: "Running now" })).toBeVisible();
      await check("/cluster");
      await visitor.signOut();
      await visitor.expectSignedOut();
      await check("/login after logging out");
    });
  }
}
